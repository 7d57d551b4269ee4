//! Uploads and datasets.

use std::{collections::BTreeMap, path::Path, time::Duration};

use nereid_core::{
    Name,
    datasets::{Dataset, DatasetSource, DatasetVersion, PreviewRow},
};
use reqwest::{Body, Method, header::CONTENT_LENGTH};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use crate::{
    Client, ClientError,
    client::{decode, send},
};

/// Registration reads all of the data before it answers.
const REGISTER_TIMEOUT: Duration = Duration::from_mins(10);

/// A dataset to register; an existing name gets another version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewDataset {
    /// Name.
    pub name: Name,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Free key-value pairs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Format, files, label.
    #[serde(flatten)]
    pub source: DatasetSource,
}

/// A stored upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// Where it lies.
    pub uri: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

impl Client {
    /// Streams a local file into Nereid's bucket.
    pub async fn upload_file(&self, path: &Path) -> Result<Uploaded, ClientError> {
        let file_error = |source| ClientError::File {
            path: path.display().to_string(),
            source,
        };
        let file = tokio::fs::File::open(path).await.map_err(file_error)?;
        let bytes = file.metadata().await.map_err(file_error)?.len();
        let name = path
            .file_name()
            .map_or_else(|| "data".into(), |n| n.to_string_lossy());
        let body = Body::wrap_stream(ReaderStream::with_capacity(file, 1 << 20));
        let request = self
            .request(Method::PUT, self.url(&["v1", "uploads", &name]))
            .header(CONTENT_LENGTH, bytes);
        decode(send(octets(request, body)).await?).await
    }

    /// Stores bytes in Nereid's bucket under a file name.
    pub async fn upload_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<Uploaded, ClientError> {
        let request = self.request(Method::PUT, self.url(&["v1", "uploads", name]));
        decode(send(octets(request, bytes.into())).await?).await
    }

    /// Registers a dataset version: the server reads and describes all of the data.
    pub async fn register_dataset(&self, new: &NewDataset) -> Result<DatasetVersion, ClientError> {
        self.post(&["v1", "datasets"], new, REGISTER_TIMEOUT).await
    }

    /// Lists datasets by name.
    pub async fn datasets(&self, limit: usize) -> Result<Vec<Dataset>, ClientError> {
        self.list(&["v1", "datasets"], &[], limit).await
    }

    /// Returns a dataset.
    pub async fn dataset(&self, name: &str) -> Result<Dataset, ClientError> {
        self.get(&["v1", "datasets", name]).await
    }

    /// Returns the first rows of a dataset version.
    pub async fn dataset_preview(
        &self,
        name: &str,
        version: u32,
    ) -> Result<Vec<PreviewRow>, ClientError> {
        #[derive(Deserialize)]
        struct Preview {
            rows: Vec<PreviewRow>,
        }
        let version = version.to_string();
        let path = ["v1", "datasets", name, "versions", &version, "preview"];
        Ok(self.get::<Preview>(&path).await?.rows)
    }

    /// Deletes a dataset.
    pub async fn delete_dataset(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&["v1", "datasets", name]).await
    }
}

fn octets(request: reqwest::RequestBuilder, body: Body) -> reqwest::RequestBuilder {
    request
        .header("content-type", "application/octet-stream")
        .body(body)
}
