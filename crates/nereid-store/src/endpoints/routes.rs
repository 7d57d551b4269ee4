//! Routes: where the gateway may send requests now.

use std::time::Duration;

use nereid_core::{
    Name,
    endpoints::{Candidate, GenerationSettings, ReplicaAddress, Route, RouteVariant},
    ids::{EndpointId, ProjectId},
    rollouts::RolloutType,
};

use crate::{Store, StoreError, rows::Row};

/// Longest silence of a worker that still gets requests: some heartbeats may be late.
const MAX_SILENCE: Duration = Duration::from_secs(15);

impl Store {
    /// All routes of all projects that can answer, keyed by project and name, for the gateway's cache.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn routes(&self) -> Result<Vec<(ProjectId, Name, Route)>, StoreError> {
        let rows = sqlx::query_file!("queries/endpoints/routes.sql", MAX_SILENCE.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        let mut routes: Vec<(ProjectId, Name, Route)> = Vec::new();
        let mut newest_variant = None;
        // Rows come by endpoint and variant, so whatever is new starts a new entry.
        for r in rows {
            let endpoint = EndpointId(r.endpoint);
            let row = Row::new("endpoints", &r.endpoint);
            if routes
                .last()
                .is_none_or(|(_, _, last)| last.endpoint != endpoint)
            {
                let candidate = match (r.candidate, r.rollout) {
                    (Some(generation), Some(settings)) => Some(candidate(
                        row.number("generation", generation)?,
                        row.number("share", r.share.unwrap_or(0))?,
                        &row.json("settings", settings)?,
                    )),
                    _ => None,
                };
                let route = Route {
                    endpoint,
                    generation: row.number("serving_generation", r.serving_generation)?,
                    candidate,
                    variants: Vec::new(),
                };
                routes.push((r.project_id.into(), row.name("name", r.name)?, route));
            }
            let Some((_, _, route)) = routes.last_mut() else {
                continue;
            };
            if newest_variant.replace(r.variant) != Some(r.variant) {
                route.variants.push(RouteVariant {
                    id: r.variant.into(),
                    generation: row.number("generation", r.generation)?,
                    asleep: r.replica.is_none(),
                    name: row.name("variant", r.variant_name)?,
                    weight: row.number("weight", r.weight)?,
                    model: row.name("model", r.model)?,
                    version: row.number("version", r.version)?,
                    signature: row.json("signature", r.signature)?,
                    digest: r.digest.unwrap_or_default(),
                    settings: row.json("settings", r.settings)?,
                    replicas: Vec::new(),
                });
            }
            if let Some(variant) = route.variants.last_mut()
                && let (Some(replica), Some(worker), Some(url)) = (r.replica, r.worker, r.url)
            {
                variant.replicas.push(ReplicaAddress {
                    id: replica.into(),
                    worker: worker.into(),
                    url,
                });
            }
        }
        Ok(routes)
    }
}

fn candidate(generation: u32, share: u32, settings: &GenerationSettings) -> Candidate {
    let shadow = match settings.rollout.kind {
        RolloutType::Shadow => settings.rollout.shadow_sample,
        _ => 0,
    };
    Candidate {
        generation,
        share,
        shadow,
    }
}
