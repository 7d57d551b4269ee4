//! Which replicas are ready, how busy each is, and which one comes next.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use nereid_core::{
    Name,
    datasets::encoding::TableEncoder,
    endpoints::{ReplicaAddress, Route, RouteVariant},
    ids::{ProjectId, ReplicaId},
    models::Signature,
};

type Table = HashMap<ProjectId, HashMap<Name, Arc<Target>>>;

/// All routes of this process; readers take a cheap snapshot.
#[derive(Default)]
pub(super) struct Routes(RwLock<Arc<Table>>);

/// What an endpoint serves.
#[derive(Debug)]
pub(crate) struct Target {
    /// Variants with a ready replica.
    pub(crate) variants: Vec<Variant>,
}

/// A variant that can answer.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: Name,
    pub(crate) model: Name,
    pub(crate) version: u32,
    pub(crate) signature: Signature,
    /// Made of the signature when first needed.
    encoder: OnceLock<TableEncoder>,
    weight: u32,
    replicas: Vec<Member>,
}

/// A replica with the number of requests it is working on for this process.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) address: ReplicaAddress,
    outstanding: Arc<AtomicUsize>,
}

/// Counts a request as outstanding until dropped.
pub(super) struct Occupied(Arc<AtomicUsize>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Routes {
    pub(super) fn get(&self, project: ProjectId, name: &Name) -> Option<Arc<Target>> {
        self.snapshot().get(&project)?.get(name).cloned()
    }

    /// Takes over new routes; replicas that stay keep their counters.
    pub(super) fn replace(&self, routes: Vec<(ProjectId, Name, Route)>) {
        let old = self.snapshot();
        let mut counters = HashMap::new();
        for member in old
            .values()
            .flat_map(HashMap::values)
            .flat_map(|t| t.members())
        {
            counters.insert(member.address.id, member.outstanding.clone());
        }
        let mut table = Table::new();
        for (project, name, route) in routes {
            let target = Target::new(route, &counters);
            if !target.variants.is_empty() {
                table
                    .entry(project)
                    .or_default()
                    .insert(name, Arc::new(target));
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn snapshot(&self) -> Arc<Table> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Target {
    fn new(route: Route, counters: &HashMap<ReplicaId, Arc<AtomicUsize>>) -> Self {
        let ready = |v: &RouteVariant| !v.replicas.is_empty();
        let variants = route.variants.into_iter().filter(ready);
        let variants = variants.map(|v| Variant::new(v, counters)).collect();
        Self { variants }
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.variants.iter().flat_map(|v| &v.replicas)
    }

    /// Draws a variant by weight; `None` only if none is ready.
    pub(crate) fn choose(&self) -> Option<&Variant> {
        let total: u64 = self.variants.iter().map(|v| u64::from(v.weight)).sum();
        if total == 0 {
            return self.variants.first();
        }
        let mut ticket = rand::random_range(0..total);
        self.variants.iter().find(|v| {
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

    /// Finds the variant that serves a version of its model.
    pub(crate) fn of_version(&self, version: u32) -> Option<&Variant> {
        self.variants.iter().find(|v| v.version == version)
    }
}

impl Variant {
    fn new(variant: RouteVariant, counters: &HashMap<ReplicaId, Arc<AtomicUsize>>) -> Self {
        let member = |address: ReplicaAddress| {
            let outstanding = counters.get(&address.id).cloned().unwrap_or_default();
            Member {
                address,
                outstanding,
            }
        };
        Self {
            name: variant.name,
            model: variant.model,
            version: variant.version,
            signature: variant.signature,
            encoder: OnceLock::new(),
            weight: variant.weight,
            replicas: variant.replicas.into_iter().map(member).collect(),
        }
    }

    /// Returns what encodes the model's columns, if they are of mixed kind.
    pub(crate) fn encoder(&self) -> Option<&TableEncoder> {
        let columns = &self.signature.preprocessing.columns;
        (!columns.is_empty()).then(|| self.encoder.get_or_init(|| TableEncoder::new(columns)))
    }

    /// Draws two replicas and takes the less busy one (Mitzenmacher, 2001), never `except`.
    pub(super) fn choose(&self, except: Option<ReplicaId>) -> Option<&Member> {
        let allowed: Vec<&Member> = self
            .replicas
            .iter()
            .filter(|m| Some(m.address.id) != except)
            .collect();
        if allowed.is_empty() {
            return None;
        }
        let draw = || allowed[rand::random_range(0..allowed.len())];
        let (a, b) = (draw(), draw());
        Some(if a.load() <= b.load() { a } else { b })
    }
}

impl Member {
    pub(super) fn occupy(&self) -> Occupied {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Occupied(self.outstanding.clone())
    }

    fn load(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use nereid_core::{
        batching::VariantSettings,
        ids::{EndpointId, VariantId, WorkerId},
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
        let target = Target::new(route(variants), &HashMap::new());
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
    fn the_busier_replica_gets_less() {
        let target = Target::new(
            route(vec![variant("a", 1, vec![address(), address()])]),
            &HashMap::new(),
        );
        let variant = target.choose().unwrap();
        let busy = &variant.replicas[0];
        let _held: Vec<_> = (0..5).map(|_| busy.occupy()).collect();
        let hits = (0..1000)
            .filter(|_| variant.choose(None).unwrap().address.id == busy.address.id)
            .count();
        assert!(hits < 400, "{hits}");
        let other = variant.choose(Some(busy.address.id)).unwrap();
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
