//! The connection to a store, and what needs no body: buckets, heads and lists.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::BehaviorVersion;
use aws_sdk_s3::{
    Client,
    config::{
        Builder, Credentials, Region, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    operation::create_bucket::CreateBucketError,
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio_util::task::TaskTracker;

use crate::{InvalidUri, ObjectError, S3Uri};

/// Region to sign for where the server has none.
const DEFAULT_REGION: &str = "us-east-1";
/// Attempts of one request, the first included.
const MAX_ATTEMPTS: u32 = 5;
/// Pause before the first retry; it doubles, and chance spreads it.
const FIRST_BACKOFF: Duration = Duration::from_millis(300);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for an answer to begin; stalled bodies are found by their throughput.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Which store, and which bucket of it is Nereid's own.
#[derive(Clone)]
pub struct ObjectStoreConfig {
    /// Bucket for Nereid's own objects; others are reached by their URIs.
    pub bucket: String,
    /// URL of the server; AWS if not given.
    pub endpoint: Option<String>,
    /// Region; that of the environment if not given.
    pub region: Option<String>,
    /// Whether the bucket is part of the path instead of the host name.
    pub path_style: bool,
    /// Access and secret key; the standard AWS chain if not given.
    pub credentials: Option<(String, String)>,
}

impl ObjectStoreConfig {
    /// AWS, or with an endpoint another server with the bucket in the path.
    #[must_use]
    pub fn new(bucket: impl Into<String>, endpoint: Option<String>) -> Self {
        Self {
            bucket: bucket.into(),
            path_style: endpoint.is_some(),
            endpoint,
            region: None,
            credentials: None,
        }
    }
}

impl fmt::Debug for ObjectStoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreConfig")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("credentials", &self.credentials.as_ref().map(|_| "hidden"))
            .finish()
    }
}

/// What a store tells about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Size of the content.
    pub bytes: u64,
    /// Changes with the content; without the quotes that HTTP puts around it.
    pub etag: String,
    /// When it was written, by the server's clock.
    pub last_modified: Option<SystemTime>,
}

/// One object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Where it is.
    pub uri: S3Uri,
    /// What it is.
    pub info: ObjectInfo,
}

/// A store; clones share its connections.
#[derive(Clone)]
pub struct Objects {
    pub(crate) client: Client,
    bucket: Arc<str>,
    region: Option<Region>,
    // Clean-up that outlives the call it follows.
    pub(crate) background: TaskTracker,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Reads the AWS configuration; sends nothing to the store yet.
    ///
    /// # Errors
    /// If the bucket's name is not allowed.
    pub async fn connect(config: ObjectStoreConfig) -> Result<Self, InvalidUri> {
        S3Uri::new(config.bucket.as_str(), "any")?;
        let region = config.region.map(Region::new);
        let builder = if let Some((access, secret)) = config.credentials {
            Builder::new()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(Credentials::new(access, secret, None, None, "nereid"))
                .region(region)
        } else {
            let mut loader = aws_config::defaults(BehaviorVersion::latest());
            if let Some(region) = region {
                // Else the chain asks the instance's metadata service, which may not be there.
                loader = loader.region(region);
            }
            Builder::from(&loader.load().await)
        };
        let mut builder = builder
            .force_path_style(config.path_style)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(MAX_ATTEMPTS)
                    .with_initial_backoff(FIRST_BACKOFF),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .read_timeout(READ_TIMEOUT)
                    .build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().build());
        if let Some(endpoint) = config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let mut conf = builder.build();
        if conf.region().is_none() {
            conf = conf
                .to_builder()
                .region(Region::from_static(DEFAULT_REGION))
                .build();
        }
        Ok(Self {
            region: conf.region().cloned(),
            client: Client::from_conf(conf),
            bucket: config.bucket.into(),
            background: TaskTracker::new(),
        })
    }

    /// Name of Nereid's own bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Address of a key in Nereid's own bucket.
    ///
    /// # Errors
    /// If the key is not allowed.
    pub fn own(&self, key: impl Into<String>) -> Result<S3Uri, InvalidUri> {
        S3Uri::new(&*self.bucket, key)
    }

    /// Creates Nereid's own bucket if it is missing; any number of callers may do so at a time.
    ///
    /// # Errors
    /// If the bucket can be neither seen nor created.
    pub async fn ensure_bucket(&self) -> Result<(), ObjectError> {
        let bucket = &*self.bucket;
        let target = format!("s3://{bucket}");
        match self.client.head_bucket().bucket(bucket).send().await {
            Ok(_) => return Ok(()),
            Err(e) => match ObjectError::sdk(&target, e) {
                ObjectError::NoSuchKey { .. } | ObjectError::NoSuchBucket { .. } => {}
                error => return Err(error),
            },
        }
        let constraint = self
            .region
            .as_ref()
            // The one region that must not be named.
            .filter(|region| region.as_ref() != DEFAULT_REGION)
            .map(|region| BucketLocationConstraint::from(region.as_ref()));
        let configuration = constraint.map(|constraint| {
            CreateBucketConfiguration::builder()
                .location_constraint(constraint)
                .build()
        });
        let created = self
            .client
            .create_bucket()
            .bucket(bucket)
            .set_create_bucket_configuration(configuration)
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(e)
                if e.as_service_error()
                    .is_some_and(CreateBucketError::is_bucket_already_owned_by_you) =>
            {
                Ok(())
            }
            Err(e) => Err(ObjectError::sdk(&target, e)),
        }
    }

    /// Asks for an object's size and `ETag`.
    ///
    /// # Errors
    /// [`ObjectError::NoSuchKey`] or [`ObjectError::NoSuchBucket`] if it is not there.
    pub async fn head(&self, uri: &S3Uri) -> Result<ObjectInfo, ObjectError> {
        let object = self
            .client
            .head_object()
            .bucket(uri.bucket())
            .key(uri.key());
        match object.send().await {
            Ok(output) => Ok(info(
                output.content_length,
                output.e_tag,
                output.last_modified,
            )),
            Err(e) => Err(match ObjectError::sdk(uri, e) {
                // The answer to a HEAD has no body, so it cannot tell what is missing.
                ObjectError::NoSuchKey { target } if self.bucket_is_missing(uri).await => {
                    ObjectError::NoSuchBucket { target }
                }
                error => error,
            }),
        }
    }

    async fn bucket_is_missing(&self, uri: &S3Uri) -> bool {
        let answer = self.client.head_bucket().bucket(uri.bucket()).send().await;
        answer.is_err_and(|e| matches!(ObjectError::sdk(uri, e), ObjectError::NoSuchKey { .. }))
    }

    /// Lists all objects whose key begins with a prefix, page by page, in the order of their keys.
    ///
    /// "Folders", empty objects whose key ends in `/`, are part of the list.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
    ) -> BoxStream<'static, Result<ListedObject, ObjectError>> {
        let bucket = bucket.to_owned();
        let target = format!("s3://{bucket}/{prefix}");
        let pages = self
            .client
            .list_objects_v2()
            .bucket(&bucket)
            .prefix(prefix)
            .into_paginator()
            .send();
        stream::unfold(pages, |mut pages| async {
            Some((pages.next().await?, pages))
        })
        .map(move |page| page.map_err(|e| ObjectError::sdk(&target, e)))
        .map_ok(move |page| {
            let bucket = bucket.clone();
            let objects = page.contents.unwrap_or_default().into_iter();
            stream::iter(objects.filter_map(move |object| {
                // A key that this crate would not take was not written by it.
                let uri = S3Uri::new(bucket.as_str(), object.key?).ok()?;
                let info = info(object.size, object.e_tag, object.last_modified);
                Some(Ok(ListedObject { uri, info }))
            }))
        })
        .try_flatten()
        .boxed()
    }

    /// Waits for the clean-up of cancelled uploads; to be called once, at the end.
    pub async fn close(&self) {
        self.background.close();
        self.background.wait().await;
    }
}

/// Gathers what the answers to different requests call by the same names.
pub(crate) fn info(
    bytes: Option<i64>,
    etag: Option<String>,
    last_modified: Option<aws_smithy_types::DateTime>,
) -> ObjectInfo {
    ObjectInfo {
        bytes: bytes
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or_default(),
        etag: bare_etag(etag.unwrap_or_default()),
        last_modified: last_modified.and_then(|time| SystemTime::try_from(time).ok()),
    }
}

/// Without quotes; a weak one keeps its form.
pub(crate) fn bare_etag(etag: String) -> String {
    match etag
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(bare) => bare.to_owned(),
        None => etag,
    }
}

/// As HTTP wants it in a condition.
pub(crate) fn quoted_etag(etag: &str) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") || etag == "*" {
        etag.to_owned()
    } else {
        format!("\"{etag}\"")
    }
}
