//! What can be watched of a job.

use nereid_core::{events::*, ids::*};
use crate::{Page, PageRequest, Store, StoreError};

impl Store {
    /// Events after `after` in order, at most `limit`. NotFound if the job is not in the project.
    pub async fn job_events(&self, project: ProjectId, id: JobId, after: u64, limit: u32) -> Result<Vec<JobEvent>, StoreError> { todo!() }
    /// Log lines in order, after the page's position; optionally only of `level` and above.
    pub async fn job_logs(&self, project: ProjectId, id: JobId, level: Option<LogLevel>, page: &PageRequest) -> Result<Page<LogLine>, StoreError> { todo!() }
    /// Metric points of the job in step order (each step once), at most `limit` (thinned evenly if there are more).
    pub async fn job_metrics(&self, project: ProjectId, id: JobId, limit: u32) -> Result<Vec<MetricPoint>, StoreError> { todo!() }
}
