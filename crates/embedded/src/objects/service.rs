//! The S3 operations over [`ObjectFiles`]: one line each, the work is in the modules named after it.

use super::faults::Faults;
use super::files::ObjectFiles;
use super::meta::ObjectMeta;
use super::{get, lifecycle, put};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

/// The operations.
pub struct ObjectService {
    files: ObjectFiles,
    faults: Faults,
}

impl ObjectService {
    /// Over a folder of buckets.
    pub fn new(files: ObjectFiles, faults: Faults) -> Self {
        Self { files, faults }
    }

    fn bucket(&self, bucket: &str) -> S3Result<&ObjectFiles> {
        if self.files.has_bucket(bucket) { Ok(&self.files) } else { Err(s3_error!(NoSuchBucket)) }
    }
}

pub(super) fn disk(error: &std::io::Error) -> s3s::S3Error {
    tracing::error!(%error, "object store disk error");
    s3_error!(InternalError, "the disk failed")
}

pub(super) fn etag(meta: &ObjectMeta) -> ETag {
    ETag::Strong(meta.etag.clone())
}

pub(super) fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from(meta.modified)
}

#[async_trait::async_trait]
impl S3 for ObjectService {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(&req.input.bucket).map_err(|e| disk(&e))?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        put::put(self.bucket(&req.input.bucket)?, req).await
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        put::copy(self.bucket(&req.input.bucket)?, req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        get::head(self.bucket(&req.input.bucket)?, &req.input)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        get::get(self.bucket(&req.input.bucket)?, &self.faults, req.input).await
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        get::list(self.bucket(&req.input.bucket)?, req.input)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let files = self.bucket(&req.input.bucket)?;
        files.delete(&req.input.bucket, &req.input.key).map_err(|e| disk(&e))?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let files = self.bucket(&req.input.bucket)?;
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            files.delete(&req.input.bucket, &object.key).map_err(|e| disk(&e))?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        req: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        lifecycle::put(self.bucket(&req.input.bucket)?, req.input)
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        lifecycle::get(self.bucket(&req.input.bucket)?, &req.input.bucket)
    }

    async fn delete_bucket_lifecycle(
        &self,
        req: S3Request<DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
        lifecycle::delete(self.bucket(&req.input.bucket)?, &req.input.bucket)
    }
}
