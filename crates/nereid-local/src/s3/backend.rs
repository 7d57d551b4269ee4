//! The operations of S3 on a [`Folder`]: those that Nereid and everyday tools use.
//!
//! Versions, access control, tags and encryption are not there: such requests get
//! `NotImplemented`, and their headers on other requests are ignored.

use std::{path::PathBuf, sync::Arc};

use s3s::{
    S3, S3Error, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, CommonPrefix,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput,
        CopyObjectOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput,
        DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
        HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
        ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
        ListObjectsV2Output, Object as ListedObject, PutObjectInput, PutObjectOutput, Timestamp,
        UploadPartInput, UploadPartOutput,
    },
};
use tokio::task::spawn_blocking;

use super::{
    folder::Folder,
    listing::{self, Entry, Query},
    objects, uploads,
};

/// Most keys of one page, as in S3.
const MAX_KEYS: usize = 1_000;

/// Serves a folder.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pub(super) folder: Arc<Folder>,
}

impl Backend {
    /// Runs file operations where they may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Folder>) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let folder = Arc::clone(&self.folder);
        spawn_blocking(move || work(&folder))
            .await
            .map_err(S3Error::internal_error)?
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.blocking(move |folder| folder.create_bucket(&req.input.bucket))
            .await?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.blocking(move |folder| folder.delete_bucket(&req.input.bucket))
            .await?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.blocking(move |folder| folder.bucket(&req.input.bucket))
            .await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.blocking(move |folder| folder.bucket(&req.input.bucket))
            .await?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(
        &self,
        _: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.blocking(|folder| list_buckets(folder)).await?;
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            ..ListBucketsOutput::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let output = self
            .blocking(move |folder| objects::get(folder, &req.input))
            .await?;
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let output = self
            .blocking(move |folder| objects::head(folder, &req.input))
            .await?;
        Ok(S3Response::new(output))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        Ok(S3Response::new(Box::pin(objects::put(self, req)).await?))
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let output = self
            .blocking(move |folder| objects::copy(folder, req.input))
            .await?;
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.blocking(move |folder| folder.delete(&req.input.bucket, &req.input.key))
            .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let output = self
            .blocking(move |folder| delete_all(folder, req.input))
            .await?;
        Ok(S3Response::new(output))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let v2 = self.list_objects_v2(req.map_input(Into::into)).await?;
        Ok(v2.map_output(|v2| ListObjectsOutput {
            contents: v2.contents,
            common_prefixes: v2.common_prefixes,
            delimiter: v2.delimiter,
            is_truncated: v2.is_truncated,
            max_keys: v2.max_keys,
            name: v2.name,
            next_marker: v2.next_continuation_token,
            prefix: v2.prefix,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let output = self.blocking(move |folder| list(folder, req.input)).await?;
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let output = self
            .blocking(move |folder| uploads::create(folder, req.input))
            .await?;
        Ok(S3Response::new(output))
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        Ok(S3Response::new(Box::pin(uploads::part(self, req)).await?))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let output = self
            .blocking(move |folder| uploads::complete(folder, req.input))
            .await?;
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.blocking(move |folder| uploads::abort(folder, &req.input.upload_id))
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn list_buckets(folder: &Folder) -> S3Result<Vec<Bucket>> {
    let entries = folder.buckets().map_err(S3Error::internal_error)?;
    let bucket = |entry: std::fs::DirEntry| Bucket {
        name: entry.file_name().into_string().ok(),
        creation_date: entry
            .metadata()
            .and_then(|stat| stat.created().or_else(|_| stat.modified()))
            .ok()
            .map(Timestamp::from),
        ..Bucket::default()
    };
    Ok(entries.into_iter().map(bucket).collect())
}

fn delete_all(folder: &Folder, input: DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
    let mut output = DeleteObjectsOutput::default();
    folder.bucket(&input.bucket)?;
    for object in input.delete.objects {
        match folder.delete(&input.bucket, &object.key) {
            Ok(()) => output.deleted.get_or_insert_default().push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            }),
            Err(e) => output.errors.get_or_insert_default().push(s3s::dto::Error {
                key: Some(object.key),
                code: Some(e.code().as_str().to_owned()),
                message: e.message().map(str::to_owned),
                ..s3s::dto::Error::default()
            }),
        }
    }
    if input.delete.quiet == Some(true) {
        output.deleted = None;
    }
    Ok(output)
}

fn list(folder: &Folder, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let bucket = folder.bucket(&input.bucket)?;
    let limit = input
        .max_keys
        .and_then(|max| usize::try_from(max).ok())
        .unwrap_or(MAX_KEYS);
    let page = listing::list(
        &bucket,
        &Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            after: input
                .continuation_token
                .as_deref()
                .max(input.start_after.as_deref()),
            limit: limit.min(MAX_KEYS),
        },
    )
    .map_err(S3Error::internal_error)?;

    let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry {
            Entry::CommonPrefix(prefix) => common_prefixes.push(CommonPrefix {
                prefix: Some(prefix),
            }),
            Entry::Key(key) => contents.extend(listed(folder, &input.bucket, key)?),
        }
    }
    Ok(ListObjectsV2Output {
        key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next,
        continuation_token: input.continuation_token,
        delimiter: input.delimiter,
        max_keys: i32::try_from(limit).ok(),
        name: Some(input.bucket),
        prefix: input.prefix,
        start_after: input.start_after,
        ..ListObjectsV2Output::default()
    })
}

/// An entry of a list, or nothing if the object was deleted meanwhile.
fn listed(folder: &Folder, bucket: &str, key: String) -> S3Result<Option<ListedObject>> {
    let path: PathBuf = folder.path_of(bucket, &key)?;
    let object = super::object::Object::open(&path).map_err(S3Error::internal_error)?;
    Ok(object.map(|object| ListedObject {
        key: Some(key),
        e_tag: Some(ETag::Strong(object.attributes.etag)),
        size: i64::try_from(object.bytes).ok(),
        last_modified: Some(Timestamp::from(object.modified)),
        ..ListedObject::default()
    }))
}
