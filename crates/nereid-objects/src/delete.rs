//! Deleting: single objects, and many in one request.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures::{StreamExt, TryStreamExt};

use crate::{ObjectError, Objects, S3Uri};

/// Keys of one deletion, as S3 has it.
const DELETE_BATCH: usize = 1_000;

impl Objects {
    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// If the bucket does not exist or access is denied.
    pub async fn delete(&self, uri: &S3Uri) -> Result<(), ObjectError> {
        self.client
            .delete_object()
            .bucket(uri.bucket())
            .key(uri.key())
            .send()
            .await
            .map(drop)
            .map_err(|e| ObjectError::sdk(uri, e))
    }

    /// Deletes all objects whose key begins with that of `prefix`, and tells how many.
    ///
    /// # Errors
    /// At the first object that cannot be deleted; those before it are gone.
    pub async fn delete_prefix(&self, prefix: &S3Uri) -> Result<u64, ObjectError> {
        let mut batches = self
            .list(prefix.bucket(), prefix.key())
            .try_chunks(DELETE_BATCH);
        let mut deleted = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| e.1)?;
            deleted += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let keys = batch.iter().map(|object| object.uri.key().to_owned());
            self.delete_batch(prefix.bucket(), keys.collect()).await?;
        }
        Ok(deleted)
    }

    /// Deletes objects of Nereid's own bucket; those that are not there are no error.
    ///
    /// # Errors
    /// At the first object that cannot be deleted; others may be gone.
    pub async fn delete_own(&self, keys: &[String]) -> Result<(), ObjectError> {
        for batch in keys.chunks(DELETE_BATCH) {
            self.delete_batch(self.bucket(), batch.to_vec()).await?;
        }
        Ok(())
    }

    async fn delete_batch(&self, bucket: &str, keys: Vec<String>) -> Result<(), ObjectError> {
        let target = format!("s3://{bucket}");
        let bad_request = |e: aws_smithy_types::error::operation::BuildError| ObjectError::Other {
            target: target.clone(),
            reason: "the request is incomplete".to_owned(),
            source: Some(Box::new(e)),
        };
        let keys = keys
            .into_iter()
            .map(|key| ObjectIdentifier::builder().key(key).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad_request)?;
        let delete = Delete::builder()
            .set_objects(Some(keys))
            .quiet(true)
            .build()
            .map_err(bad_request)?;
        let output = self
            .client
            .delete_objects()
            .bucket(bucket)
            .delete(delete)
            .send()
            .await
            .map_err(|e| ObjectError::sdk(&target, e))?;
        let Some(error) = output.errors.unwrap_or_default().into_iter().next() else {
            return Ok(());
        };
        let target = format!("s3://{bucket}/{}", error.key.unwrap_or_default());
        match error.code.as_deref() {
            Some("AccessDenied") => Err(ObjectError::AccessDenied { target }),
            code => Err(ObjectError::unavailable(
                &target,
                code.unwrap_or("unknown"),
                None,
            )),
        }
    }
}
