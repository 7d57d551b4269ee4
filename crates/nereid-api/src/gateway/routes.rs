//! Which replicas are ready, how busy each is, and which one comes next.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use nereid_core::{
    Name,
    datasets::encoding::TableEncoder,
    endpoints::{Candidate, ReplicaAddress, Route, RouteVariant},
    ids::{ProjectId, VariantId},
    inference::InferError,
    models::Signature,
    statistics::{Snapshot, Statistics},
};

use super::{
    ask::hedge_after,
    cache::Cache,
    members::{Counters, Member, draw, millis},
    traffic::Traffic,
};

type Table = HashMap<ProjectId, HashMap<Name, Arc<Target>>>;

/// All routes of this process; readers take a cheap snapshot.
#[derive(Default)]
pub(super) struct Routes(RwLock<Arc<Table>>);

/// What an endpoint serves.
#[derive(Debug)]
pub(crate) struct Target {
    /// Generation that serves.
    generation: u32,
    /// What the generation being rolled out gets.
    candidate: Option<Candidate>,
    /// Variants with a ready replica, or without any while they sleep.
    pub(crate) variants: Vec<Variant>,
}

/// A variant that can answer.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) id: VariantId,
    generation: u32,
    pub(crate) name: Name,
    pub(crate) model: Name,
    pub(crate) version: u32,
    pub(crate) signature: Signature,
    /// Made of the signature when first needed.
    encoder: OnceLock<TableEncoder>,
    weight: u32,
    replicas: Vec<Member>,
    /// Requests that a replica takes before it says that it is busy, at least.
    capacity: usize,
    pub(super) hedge_after: Option<Duration>,
    pub(super) cache: Option<Arc<Cache>>,
    /// What happened to its requests in this process.
    pub(crate) statistics: Arc<Statistics>,
    /// What its answers were like.
    pub(super) traffic: Arc<Traffic>,
    /// Whether it has no replica because nobody needed one.
    pub(super) is_asleep: bool,
}

/// What happened to the requests of a variant in one process, since it began to serve there.
#[derive(Debug, Clone)]
pub struct VariantStatistics {
    /// Project of the endpoint.
    pub project: ProjectId,
    /// The endpoint.
    pub endpoint: Name,
    /// Identifier of the variant, another one in each generation.
    pub id: VariantId,
    /// Its name.
    pub variant: Name,
    /// Its model.
    pub model: Name,
    /// Version of the model.
    pub version: u32,
    /// Ready replicas.
    pub replicas: usize,
    /// What was counted.
    pub counted: Snapshot,
}

impl Routes {
    pub(super) fn get(&self, project: ProjectId, name: &Name) -> Option<Arc<Target>> {
        self.snapshot().get(&project)?.get(name).cloned()
    }

    /// Takes over new routes; replicas that stay keep their counters.
    pub(super) fn replace(&self, routes: Vec<(ProjectId, Name, Route)>) {
        let old = self.snapshot();
        let mut table = Table::new();
        let mut counters = Counters::of(
            old.values()
                .flat_map(HashMap::values)
                .flat_map(|t| t.members()),
        );
        for (project, name, route) in routes {
            let before = old.get(&project).and_then(|of| of.get(&name));
            let target = Target::new(route, &mut counters, before.map(|t| &**t));
            if !target.variants.is_empty() {
                table
                    .entry(project)
                    .or_default()
                    .insert(name, Arc::new(target));
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    pub(super) fn statistics(&self) -> Vec<VariantStatistics> {
        let mut all = Vec::new();
        for (&project, endpoints) in &*self.snapshot() {
            for (endpoint, target) in endpoints {
                let of = target.variants.iter().map(|v| VariantStatistics {
                    project,
                    endpoint: endpoint.clone(),
                    id: v.id,
                    variant: v.name.clone(),
                    model: v.model.clone(),
                    version: v.version,
                    replicas: v.replicas.len(),
                    counted: v.statistics.snapshot(),
                });
                all.extend(of);
            }
        }
        all
    }

    /// Looks at each variant of each project.
    pub(super) fn for_each(&self, mut look: impl FnMut(&Variant)) {
        for target in self.snapshot().values().flat_map(HashMap::values) {
            target.variants.iter().for_each(&mut look);
        }
    }

    fn snapshot(&self) -> Arc<Table> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Target {
    fn new(route: Route, counters: &mut Counters, before: Option<&Self>) -> Self {
        let ready = |v: &RouteVariant| v.asleep || !v.replicas.is_empty();
        let variants = route.variants.into_iter().filter(ready);
        let variants = variants.map(|v| {
            let same = |b: &&Variant| b.id == v.id;
            let before = before.and_then(|t| t.variants.iter().find(same));
            Variant::new(v, counters, before)
        });
        Self {
            generation: route.generation,
            candidate: route.candidate,
            variants: variants.collect(),
        }
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.variants.iter().flat_map(|v| &v.replicas)
    }

    /// Tells whether no replica has room for another request.
    pub(super) fn is_saturated(&self) -> bool {
        let full = |v: &Variant| !v.is_asleep && v.replicas.iter().all(|m| m.load() >= v.capacity);
        self.variants.iter().all(full)
    }

    /// Counts a request that was turned away before a variant was chosen.
    pub(super) fn reject(&self) {
        if let Some(variant) = self.choose() {
            variant.statistics.refused(&InferError::Busy);
        }
    }

    /// Draws a variant by weight, of the generation that serves, or of the one being rolled out
    /// for its share of the requests; `None` only if none is ready.
    pub(crate) fn choose(&self) -> Option<&Variant> {
        let drawn = match self.candidate {
            Some(c) if rand::random_range(0..100) < c.share => c.generation,
            _ => self.generation,
        };
        self.draw(Some(drawn)).or_else(|| match self.candidate {
            Some(c) if c.share == 0 => None,
            _ => self.draw(None),
        })
    }

    /// Tells whether the request at hand is one that the shadow gets a copy of.
    pub(super) fn mirrors(&self) -> bool {
        let sample = self.candidate.map_or(0, |c| c.shadow);
        sample > 0 && rand::random_range(0..100) < sample
    }

    /// Tells whether answers of two generations are being compared.
    pub(super) fn compares(&self) -> bool {
        self.candidate.is_some()
    }

    /// Draws a variant of the generation that is tried as a shadow.
    pub(super) fn shadow(&self) -> Option<&Variant> {
        let candidate = self.candidate.filter(|c| c.shadow > 0)?;
        self.draw(Some(candidate.generation))
    }

    /// Finds a variant by its identifier.
    pub(super) fn find(&self, id: VariantId) -> Option<&Variant> {
        self.variants.iter().find(|v| v.id == id)
    }

    /// Draws a variant of a generation, or of any.
    fn draw(&self, generation: Option<u32>) -> Option<&Variant> {
        let of = |v: &&Variant| generation.is_none_or(|g| v.generation == g);
        let total: u64 = self
            .variants
            .iter()
            .filter(of)
            .map(|v| u64::from(v.weight))
            .sum();
        if total == 0 {
            return self.variants.iter().find(of);
        }
        let mut ticket = rand::random_range(0..total);
        self.variants.iter().filter(of).find(|v| {
            let won = ticket < u64::from(v.weight);
            ticket = ticket.saturating_sub(u64::from(v.weight));
            won
        })
    }

    /// Returns the versions that answer, each once, in order.
    pub(crate) fn versions(&self) -> Vec<u32> {
        let mut versions: Vec<u32> = self.variants.iter().map(|v| v.version).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Finds the variant that serves a version of its model, that of the generation that serves
    /// before others.
    pub(crate) fn of_version(&self, version: u32) -> Option<&Variant> {
        let found = self.variants.iter().filter(|v| v.version == version);
        found.max_by_key(|v| v.generation == self.generation)
    }
}

impl Variant {
    fn new(variant: RouteVariant, counters: &mut Counters, before: Option<&Self>) -> Self {
        let settings = variant.settings;
        let (batching, digest) = (settings.batching, variant.digest);
        let kept = before.and_then(|b| b.cache.clone());
        let cache = batching.response_cache.map(|c| {
            kept.filter(|kept| kept.serves(&digest, c.max_bytes))
                .unwrap_or_else(|| Arc::new(Cache::new(digest, c.max_bytes)))
        });
        let replicas = variant.replicas.into_iter();
        Self {
            id: variant.id,
            generation: variant.generation,
            name: variant.name,
            model: variant.model,
            version: variant.version,
            signature: variant.signature,
            encoder: OnceLock::new(),
            weight: variant.weight,
            replicas: replicas.map(|r| counters.member(r)).collect(),
            capacity: (batching.max_queue_size + batching.concurrency.max(1)) as usize,
            hedge_after: hedge_after(settings.hedge_after_us),
            cache,
            statistics: before.map(|b| b.statistics.clone()).unwrap_or_default(),
            traffic: before.map(|b| b.traffic.clone()).unwrap_or_default(),
            is_asleep: variant.asleep,
        }
    }

    /// Returns what encodes the model's columns, if they are of mixed kind.
    pub(crate) fn encoder(&self) -> Option<&TableEncoder> {
        let columns = &self.signature.preprocessing.columns;
        (!columns.is_empty()).then(|| self.encoder.get_or_init(|| TableEncoder::new(columns)))
    }

    /// Draws two replicas and takes the less busy one (Mitzenmacher, 2001), never `except`.
    ///
    /// Workers that did not answer a moment ago, and that of `except`, are the last resort.
    pub(super) fn choose(&self, except: Option<&ReplicaAddress>) -> Option<&Member> {
        let now = millis();
        if except.is_none() && !self.replicas.iter().any(|m| m.is_suspect(now)) {
            return draw(self.replicas.len(), |i| &self.replicas[i]);
        }
        let other = |m: &&Member| except.is_none_or(|e| e.id != m.address.id);
        let elsewhere = |m: &&Member| except.is_none_or(|e| e.worker != m.address.worker);
        let others: Vec<&Member> = self.replicas.iter().filter(other).collect();
        let best = others.iter().copied();
        let best = best.filter(|m| !m.is_suspect(now) && elsewhere(m));
        let best: Vec<&Member> = best.collect();
        let from = if best.is_empty() { &others } else { &best };
        draw(from.len(), |i| from[i])
    }
}

#[cfg(test)]
mod tests {
    use nereid_core::{
        batching::VariantSettings,
        ids::{EndpointId, ReplicaId, WorkerId},
    };

    use super::*;
    use crate::predict::tests::signature;

    fn address() -> ReplicaAddress {
        let (id, worker) = (ReplicaId::generate(), WorkerId::generate());
        ReplicaAddress {
            id,
            worker,
            url: "http://worker".to_owned(),
        }
    }

    fn variant(name: &str, weight: u32, replicas: Vec<ReplicaAddress>) -> RouteVariant {
        RouteVariant {
            id: VariantId::generate(),
            generation: 1,
            asleep: false,
            name: name.parse().unwrap(),
            weight,
            model: "digits".parse().unwrap(),
            version: 1,
            signature: signature(&[2], None),
            digest: String::new(),
            settings: VariantSettings::default(),
            replicas,
        }
    }

    fn route(variants: Vec<RouteVariant>) -> Route {
        Route {
            candidate: None,
            endpoint: EndpointId::generate(),
            generation: 1,
            variants,
        }
    }

    #[test]
    fn traffic_follows_the_weights() {
        let variants = vec![
            variant("a", 90, vec![address()]),
            variant("b", 10, vec![address()]),
            variant("off", 0, vec![address()]),
            variant("unready", 1000, vec![]),
        ];
        let target = Target::new(route(variants), &mut Counters::default(), None);
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for _ in 0..10_000 {
            *counts
                .entry(target.choose().unwrap().name.as_str())
                .or_default() += 1;
        }
        assert!((8_700..9_300).contains(&counts["a"]), "{counts:?}");
        assert_eq!(counts["a"] + counts["b"], 10_000, "{counts:?}");
    }

    #[test]
    fn a_candidate_gets_its_share() {
        let mut new = variant("a", 1, vec![address()]);
        new.generation = 2;
        let mut route = route(vec![variant("a", 100, vec![address()]), new]);
        let mut hits = |share| {
            route.candidate = Some(Candidate {
                generation: 2,
                share,
                shadow: 0,
            });
            let target = Target::new(route.clone(), &mut Counters::default(), None);
            let chosen = (0..4_000).filter_map(|_| target.choose());
            chosen.filter(|v| v.generation == 2).count()
        };
        assert_eq!((hits(0), hits(100)), (0, 4_000));
        assert!((300..500).contains(&hits(10)), "a tenth");
    }

    #[test]
    fn the_busier_replica_gets_less() {
        let target = Target::new(
            route(vec![variant("a", 1, vec![address(), address()])]),
            &mut Counters::default(),
            None,
        );
        let variant = target.choose().unwrap();
        let busy = &variant.replicas[0];
        let _held: Vec<_> = (0..5).map(|_| busy.occupy()).collect();
        let hits = (0..1000)
            .filter(|_| variant.choose(None).unwrap().address.id == busy.address.id)
            .count();
        assert!(hits < 400, "{hits}");
        let other = variant.choose(Some(&busy.address)).unwrap();
        assert_ne!(other.address.id, busy.address.id);
    }

    #[test]
    fn counters_survive_a_refresh() {
        let (project, name) = (ProjectId::generate(), "digits".parse().unwrap());
        let one = address();
        let routes = Routes::default();
        let table = || {
            vec![(
                project,
                "digits".parse().unwrap(),
                route(vec![variant("a", 1, vec![one.clone()])]),
            )]
        };
        routes.replace(table());
        let before = routes.get(project, &name).unwrap();
        let held = before.variants[0].replicas[0].occupy();
        routes.replace(table());
        let after = routes.get(project, &name).unwrap();
        assert_eq!(after.variants[0].replicas[0].load(), 1);
        drop(held);
        assert_eq!(after.variants[0].replicas[0].load(), 0);
    }
}
