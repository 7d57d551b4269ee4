//! Loads artifacts: each once, however many replicas share it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use nereid_core::{engine::Predictor, models::ServingArtifact};

use crate::{
    cache::digest_of, deploy::fetch_artifact, error::RunError, sync::lock, threads::on_thread,
    worker::Context,
};

/// A model, as long as some replica holds it; locked while it is being loaded.
type Cell = Arc<tokio::sync::Mutex<Option<Weak<dyn Predictor>>>>;

/// The models loaded in this process, by digest of their files.
#[derive(Default)]
pub(super) struct Models {
    cells: Mutex<HashMap<String, Cell>>,
}

impl Models {
    /// Returns the artifact's model, loading it unless some replica holds it; whether it did.
    pub(super) async fn load(
        &self,
        ctx: &Context,
        artifact: &ServingArtifact,
    ) -> Result<(Arc<dyn Predictor>, bool), RunError> {
        let cell = self.cell(digest_of(&artifact.files));
        let mut model = cell.lock().await;
        if let Some(loaded) = model.as_ref().and_then(Weak::upgrade) {
            return Ok((loaded, false));
        }
        let folder = fetch_artifact(ctx, artifact).await?;
        let loader = Arc::clone(&ctx.engine.loader);
        let load = on_thread("load", "loading thread", move || loader.load(&folder));
        let fresh = load.await??;
        *model = Some(Arc::downgrade(&fresh));
        Ok((fresh, true))
    }

    fn cell(&self, digest: String) -> Cell {
        let mut cells = lock(&self.cells);
        // Models that nobody holds any more leave with the next load.
        cells.retain(|_, cell| {
            let idle = Arc::strong_count(cell) == 1;
            let held = |model: &Weak<dyn Predictor>| model.strong_count() > 0;
            !idle || cell.try_lock().is_ok_and(|m| m.as_ref().is_some_and(held))
        });
        Arc::clone(cells.entry(digest).or_default())
    }
}
