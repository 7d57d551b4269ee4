//! Which outputs a client wants, and in which form.

use nereid_core::{
    models::Signature,
    tensors::{Tensor, TensorValues},
};
use serde::Deserialize;

use super::parameters::Parameters;

/// An output that a client wants.
#[derive(Debug, Deserialize)]
pub(crate) struct Requested {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) parameters: Option<Parameters>,
}

/// An output to answer.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) tensor: Tensor,
    /// Whether it comes as bytes.
    pub(crate) binary: bool,
}

/// What is to be answered, held against the signature before anything is computed.
#[derive(Debug)]
pub(crate) struct Selection {
    /// All outputs unless named.
    named: Option<Vec<Wanted>>,
    /// Whether outputs come as bytes unless they say otherwise.
    binary: bool,
}

#[derive(Debug)]
struct Wanted {
    name: String,
    binary: bool,
    /// How many of the largest values are wanted with their classes.
    classes: Option<usize>,
}

impl Selection {
    /// Checks what a request wants.
    ///
    /// # Errors
    /// An output that the model does not have, or a wrong parameter, as a sentence.
    pub(crate) fn new(
        requested: Vec<Requested>,
        binary: bool,
        signature: &Signature,
    ) -> Result<Self, String> {
        let known = |name: &str| signature.outputs.iter().any(|t| t.name == name);
        let mut named: Vec<Wanted> = Vec::new();
        for Requested { name, parameters } in requested {
            if !known(&name) {
                let all: Vec<&str> = signature.outputs.iter().map(|t| t.name.as_str()).collect();
                let all = all.join(", ");
                return Err(format!("there is no output {name:?}; known are {all}"));
            }
            if named.iter().any(|w| w.name == name) {
                return Err(format!("output {name:?} is named twice"));
            }
            let parameters = parameters.unwrap_or_default();
            parameters.refuse_shared_memory()?;
            named.push(Wanted {
                name,
                binary: parameters.binary_data()?.unwrap_or(binary),
                classes: parameters.classification()?,
            });
        }
        let named = (!named.is_empty()).then_some(named);
        Ok(Self { named, binary })
    }

    /// Picks the wanted outputs in the order in which they were named.
    pub(crate) fn pick(&self, outputs: Vec<Tensor>, signature: &Signature) -> Vec<Output> {
        let Some(named) = &self.named else {
            let binary = self.binary;
            let output = |tensor| Output { tensor, binary };
            return outputs.into_iter().map(output).collect();
        };
        let mut outputs: Vec<Option<Tensor>> = outputs.into_iter().map(Some).collect();
        let mut picked = Vec::with_capacity(named.len());
        for wanted in named {
            let is_it = |t: &&mut Option<Tensor>| t.as_ref().is_some_and(|t| t.name == wanted.name);
            let Some(tensor) = outputs.iter_mut().find(is_it).and_then(Option::take) else {
                continue;
            };
            let tensor = match wanted.classes {
                Some(count) => classify(tensor, count, signature.classes.as_deref()),
                None => tensor,
            };
            let binary = wanted.binary;
            picked.push(Output { tensor, binary });
        }
        picked
    }
}

/// Makes of each row of a tensor its largest values, as `value:index` or `value:index:label`.
///
/// Triton's classification extension
/// (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md>).
fn classify(tensor: Tensor, count: usize, labels: Option<&[String]>) -> Tensor {
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let values: Vec<f64> = match &tensor.values {
        TensorValues::Fp32(v) => v.iter().map(|&v| f64::from(v)).collect(),
        #[expect(clippy::cast_precision_loss, reason = "classes are few")]
        TensorValues::Int64(v) => v.iter().map(|&v| v as f64).collect(),
        // Text has no order by which some of it would be the largest.
        TensorValues::Bytes(_) => return tensor,
    };
    let width = values.len().checked_div(rows).unwrap_or(0);
    let kept = count.min(width);
    let labels = labels.filter(|l| l.len() == width);
    let mut found = Vec::with_capacity(rows * kept);
    for row in values.chunks(width.max(1)) {
        for index in largest(row, kept) {
            let value = row[index];
            found.push(match labels {
                Some(labels) => format!("{value:.6}:{index}:{}", labels[index]),
                None => format!("{value:.6}:{index}"),
            });
        }
    }
    Tensor {
        name: tensor.name,
        shape: vec![rows, kept],
        values: TensorValues::Bytes(found),
    }
}

/// Returns the positions of the `count` largest values, the largest first; the first of equals wins.
pub(crate) fn largest<T: PartialOrd + Copy>(values: &[T], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let descending = |a: &usize, b: &usize| {
        let order = values[*b].partial_cmp(&values[*a]);
        order.unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b))
    };
    order.sort_by(descending);
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::signature;

    fn requested(json: &str) -> Vec<Requested> {
        serde_json::from_str(json).unwrap()
    }

    fn scores() -> Vec<Tensor> {
        vec![Tensor {
            name: "prediction".to_owned(),
            shape: vec![2, 3],
            values: TensorValues::Fp32(vec![0.1, 0.7, 0.2, 0.5, 0.0, 0.5]),
        }]
    }

    #[test]
    fn answers_the_outputs_asked_for() {
        let signature = signature(&[2], None);
        let all = Selection::new(Vec::new(), true, &signature).unwrap();
        let found = all.pick(scores(), &signature);
        assert!(found.len() == 1 && found[0].binary);
        let one = requested(r#"[{"name": "prediction", "parameters": {"binary_data": false}}]"#);
        let one = Selection::new(one, true, &signature).unwrap();
        assert!(!one.pick(scores(), &signature)[0].binary);
        for bad in [
            r#"[{"name": "x"}]"#,
            r#"[{"name": "prediction"}, {"name": "prediction"}]"#,
            r#"[{"name": "prediction", "parameters": {"classification": -1}}]"#,
            r#"[{"name": "prediction", "parameters": {"shared_memory_region": "x"}}]"#,
        ] {
            assert!(
                Selection::new(requested(bad), false, &signature).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn classification_names_the_largest_values_of_each_row() {
        let mut signature = signature(&[2], None);
        let two = r#"[{"name": "prediction", "parameters": {"classification": 2}}]"#;
        let pick = |signature: &Signature| {
            let selection = Selection::new(requested(two), false, signature).unwrap();
            selection.pick(scores(), signature).remove(0).tensor
        };
        let plain = pick(&signature);
        let expected = ["0.700000:1", "0.200000:2", "0.500000:0", "0.500000:2"];
        assert_eq!(
            plain.values,
            TensorValues::Bytes(expected.map(str::to_owned).to_vec())
        );
        assert_eq!(plain.shape, [2, 2]);
        signature.classes = Some(["x", "y", "z"].map(str::to_owned).to_vec());
        let TensorValues::Bytes(named) = pick(&signature).values else {
            panic!("classification answers text");
        };
        assert_eq!(named[0], "0.700000:1:y");
    }
}
