//! What a version's network and signature say about a training that starts from it.

use super::{
    super::{
        fit::Normalization,
        layers::Layer,
        network::{Network, Plan, PlannedLayer, Source},
        objective::LossKind,
        shapes::show,
        train::TrainSpec,
    },
    InitializeFrom, Mismatched, Scaling, picks,
};
use crate::{
    datasets::DatasetSchema,
    models::{Preprocessing, Signature},
    validation::Violations,
};

/// Names listed in a message.
const LISTED: usize = 8;

/// A version that a training starts from.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Its network, written out.
    pub network: &'a Network,
    /// What it takes and gives.
    pub signature: &'a Signature,
}

/// Which layers of a network start as those of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Layers whose weights are taken over.
    pub taken: Vec<String>,
    /// Layers with weights that start anew: not picked, not there, or of other shapes.
    pub fresh: Vec<String>,
}

impl Transfer {
    /// Tells whether a layer's weights are taken over.
    #[must_use]
    pub fn takes(&self, layer: &str) -> bool {
        self.taken.iter().any(|taken| taken == layer)
    }
}

impl TrainSpec {
    /// Takes the version's network, if the spec has none of its own.
    ///
    /// If `mismatched` is `skip`, its last dense layer gets as many units as the target needs.
    ///
    /// # Errors
    /// A violation if the version's outputs are not what the target needs.
    pub fn adopt(
        &mut self,
        base: Base<'_>,
        schema: &DatasetSchema,
        pointer: &str,
    ) -> Result<(), Violations> {
        let Some(from) = &self.initialize_from else {
            return Ok(());
        };
        if !self.network.layers.is_empty() || self.network.preset.is_some() {
            return Ok(());
        }
        let mut network = base.network.clone();
        network.input_shape = None;
        let wanted = self.outputs(schema);
        // What does not fit the samples at all is found by whoever plans it next.
        if let Ok(plan) = network.plan(&schema.shape, pointer)
            && let &[found] = plan.output()
            && found != wanted
        {
            let head = head(&plan).and_then(|at| match &mut network.layers[at].layer {
                Layer::Dense(dense) => Some((&plan.layers[at].name, &mut dense.units)),
                _ => None,
            });
            match (head, from.mismatched) {
                (Some((_, units)), Mismatched::Skip) => *units = wanted,
                (head, _) => {
                    let way = head.map_or(String::new(), |(name, _)| {
                        format!("set mismatched to \"skip\" to give its layer {name:?} another size and new weights, or ")
                    });
                    let mut v = Violations::default();
                    v.push(
                        format!("{pointer}/initialize_from"),
                        "shape_mismatch",
                        format!("the network of {} yields {found} values, but the target needs {wanted}; {way}give a network", from.reference()),
                    );
                    return Err(v);
                }
            }
        }
        self.network = network;
        Ok(())
    }

    /// Finds out which layers are taken over from the version.
    ///
    /// # Errors
    /// A violation for each layer of other shapes, unless those are skipped; if no layer is left
    /// to take over, or to adapt; or if the version's preprocessing does not fit the data.
    pub fn transfer(
        &self,
        plan: &Plan,
        base: Base<'_>,
        schema: &DatasetSchema,
        pointer: &str,
    ) -> Result<Transfer, Violations> {
        let Some(from) = &self.initialize_from else {
            return Ok(Transfer::default());
        };
        let at = format!("{pointer}/initialize_from");
        let mut v = Violations::default();
        let theirs = base.network.plan(&base.signature.sample_shape(), &at)?;
        let mut transfer = Transfer::default();
        for ours in plan.layers.iter().filter(|l| !l.weights.is_empty()) {
            let picked = picks(from.layers.as_deref(), &ours.name);
            let found = theirs.layers.iter().find(|l| l.name == ours.name);
            let difference = found.filter(|_| picked).map(|f| difference(ours, f));
            let list = match difference {
                Some(None) => &mut transfer.taken,
                None => &mut transfer.fresh,
                Some(Some(difference)) => {
                    let strict = from.mismatched == Mismatched::Error;
                    v.check(!strict, &at, "shape_mismatch", || {
                        let (name, version) = (&ours.name, from.reference());
                        format!("layer {name:?}: {difference} in {version}; set mismatched to \"skip\" to start with new weights here")
                    });
                    &mut transfer.fresh
                }
            };
            list.push(ours.name.clone());
        }
        if v.is_empty() {
            v.check(!transfer.taken.is_empty(), &at, "no_match", || {
                nothing_to_take(from, &theirs)
            });
        }
        self.check_adapted(plan, &transfer, pointer, &mut v);
        if from.preprocessing == Scaling::Version {
            let scaling = &base.signature.preprocessing;
            self.check_scaling(scaling, schema, &format!("{at}/preprocessing"), &mut v);
        }
        v.into_result(transfer)
    }

    fn check_adapted(&self, plan: &Plan, transfer: &Transfer, pointer: &str, v: &mut Violations) {
        if self.fit.lora.is_none() || transfer.taken.is_empty() {
            return;
        }
        let adapts = |l: &PlannedLayer| {
            let adapts = |w| self.adapts(l, w).is_some();
            transfer.takes(&l.name) && l.weights.iter().any(adapts)
        };
        let any = plan.layers.iter().any(adapts);
        v.check(any, &format!("{pointer}/fit/lora"), "no_match", || {
            "no layer is to be adapted: it has to be a Dense, Embedding or MultiHeadAttention that is taken over from the version, and trainable must not be false for it".to_owned()
        });
    }

    /// Records why the training data cannot be scaled as the version scales its inputs.
    fn check_scaling(
        &self,
        scaling: &Preprocessing,
        schema: &DatasetSchema,
        pointer: &str,
        v: &mut Violations,
    ) {
        let last = schema.shape.last().copied().unwrap_or(1);
        let fits = |n: usize| n == 1 || n == last;
        let way = "set it to \"data\" to scale by the training data";
        v.check(
            fits(scaling.offset.len()) && fits(scaling.scale.len()),
            pointer,
            "shape_mismatch",
            || {
                let n = scaling.offset.len().max(scaling.scale.len());
                format!("the version scales {n} features, the dataset has {last}; {way}")
            },
        );
        let alike = scaling.columns == schema.features;
        v.check(alike, pointer, "shape_mismatch", || {
            format!("the version encodes the columns of its tables in another way than the dataset; {way}")
        });
        let plain = scaling.normalization == Normalization::None;
        let looks_up = self.network.looks_up();
        v.check(plain || !looks_up, pointer, "conflict", || {
            format!("the version scales its inputs, but an Embedding looks integers up; {way}")
        });
        let shares = self.is_autoencoder() && self.loss.kind() == LossKind::Binary;
        let bounded = scaling.normalization == Normalization::MinMax;
        v.check(bounded || !shares, pointer, "conflict", || {
            format!("this loss compares values from 0 to 1, on which the version does not scale its inputs; {way}")
        });
    }
}

/// Finds the layer that gives the network's output its size.
fn head(plan: &Plan) -> Option<usize> {
    let mut at = plan.layers.len().checked_sub(1)?;
    loop {
        let layer = &plan.layers[at];
        let keeps = layer.layer.is_noise() || matches!(layer.layer, Layer::Activation(_));
        match layer.sources.as_slice() {
            [Source::Layer(before)] if keeps => at = *before,
            _ => return Some(at),
        }
    }
}

/// Says how the weights of two layers differ, if they do.
fn difference(ours: &PlannedLayer, theirs: &PlannedLayer) -> Option<String> {
    let roles = |l: &PlannedLayer| {
        let roles: Vec<_> = l.weights.iter().map(|w| w.role.as_str()).collect();
        roles.join(", ")
    };
    let (here, there) = (roles(ours), roles(theirs));
    if here != there {
        let there = if there.is_empty() { "none" } else { &there };
        return Some(format!("has weights {here} here, but {there}"));
    }
    let mut pairs = ours.weights.iter().zip(&theirs.weights);
    let (a, b) = pairs.find(|(a, b)| a.shape != b.shape)?;
    let (here, there) = (show(&a.shape), show(&b.shape));
    Some(format!("{} has shape {here} here, but {there}", a.role))
}

fn nothing_to_take(from: &InitializeFrom, theirs: &Plan) -> String {
    let names = theirs.layers.iter().filter(|l| !l.weights.is_empty());
    let names: Vec<_> = names.map(|l| l.name.as_str()).collect();
    let more = if names.len() > LISTED { ", …" } else { "" };
    let listed = names[..names.len().min(LISTED)].join(", ");
    format!(
        "no layer of this network is to be taken over from {}, whose layers with weights are {listed}{more}; layers are matched by name",
        from.reference()
    )
}
