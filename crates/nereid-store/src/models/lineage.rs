//! Lineage downwards: which versions were made of a dataset version, and by a job.

use nereid_core::{
    Name,
    ids::{JobId, ProjectId},
    models::ModelVersion,
};
use uuid::Uuid;

use super::versions::select_versions;
use crate::{Page, PageRequest, Store, StoreError};

impl Store {
    /// Lists the versions whose trainings read a dataset version, as training, validation or test data, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the dataset version; [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn models_of_dataset(
        &self,
        project: ProjectId,
        dataset: &Name,
        version: u32,
        page: &PageRequest,
    ) -> Result<Page<ModelVersion>, StoreError> {
        let read = self
            .dataset_version(project, dataset, Some(version))
            .await?;
        let rows = select_versions!(
            "JOIN job_inputs i ON i.job_id = v.job_id
             WHERE m.project_id = $1 AND i.dataset_version_id = $2 AND v.deleted_at IS NULL
               AND ($3::uuid IS NULL OR v.id > $3)
             ORDER BY v.id LIMIT $4",
            project.0,
            read.id.0,
            page.position::<Uuid>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.id, TryInto::try_into)
    }

    /// Lists what a job published: a version, unless it has published none or that was deleted.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the job.
    pub async fn models_of_job(
        &self,
        project: ProjectId,
        job: JobId,
    ) -> Result<Vec<ModelVersion>, StoreError> {
        self.job(project, job).await?;
        let rows = select_versions!(
            "WHERE m.project_id = $1 AND v.job_id = $2 AND v.deleted_at IS NULL",
            project.0,
            job.0
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }
}
