//! The store over S3: the operations, as s3s calls them. What is not here is answered with 501.
//!
//! Layers: the operations here, then `buckets`, `objects`, `multipart` and `multipart_lists`, then `listing`, and `gateway` (what they share).
//! Pure: `chunked`, `conditions`, `attributes`, `names`.

pub mod attributes;
pub mod buckets;
pub mod chunked;
pub mod conditions;
mod deletions;
pub mod gateway;
pub mod listing;
pub mod multipart;
mod multipart_lists;
pub mod names;
pub mod objects;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, BucketLocationConstraint,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput,
    CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, GetBucketAclInput, GetBucketAclOutput, GetBucketLocationInput,
    GetBucketLocationOutput, GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectAclInput,
    GetObjectAclOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput,
    PutObjectInput, PutObjectOutput, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};

use self::buckets::{bucket_acl, full_control};
use self::deletions::conditional_deletion;
use self::gateway::{Gateway, owner};
use self::names::UploadName;

type Answer<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for Gateway {
    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.buckets(&store, request.input).await.map(S3Response::new)
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.make_bucket(&store, &request.input.bucket).await.map(S3Response::new)
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.head_of_bucket(&store, &request.input.bucket).await.map(S3Response::new)
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.remove_bucket(&store, &request.input.bucket).await?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.check_bucket(&store, &request.input.bucket).await?;
        // That of us-east-1 is empty.
        let location_constraint = Some(BucketLocationConstraint::from(String::new()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> Answer<GetBucketVersioningOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.check_bucket(&store, &request.input.bucket).await?;
        // Versions are kept, but not as S3 has it: a deletion takes them all, and leaves no marker. Programs that are told otherwise
        // delete version by version.
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn get_bucket_acl(&self, request: S3Request<GetBucketAclInput>) -> Answer<GetBucketAclOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.check_bucket(&store, &request.input.bucket).await?;
        Ok(S3Response::new(bucket_acl()))
    }

    async fn get_object_acl(&self, request: S3Request<GetObjectAclInput>) -> Answer<GetObjectAclOutput> {
        let store = self.store(request.credentials.as_ref())?;
        let GetObjectAclInput { bucket, key, version_id, .. } = &request.input;
        self.find(&store, bucket, key, version_id.as_deref()).await?;
        let (grants, owner) = (Some(full_control()), Some(owner()));
        Ok(S3Response::new(GetObjectAclOutput { grants, owner, ..GetObjectAclOutput::default() }))
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.list_v1(&store, request.input).await.map(S3Response::new)
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        let store = self.store(request.credentials.as_ref())?;
        self.list_v2(&store, request.input).await.map(S3Response::new)
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> Answer<ListObjectVersionsOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.list_versions(&store, request.input).await.map(S3Response::new)
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.put(&store, request).await.map(S3Response::new)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.get(&store, request.input).await.map(S3Response::new)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.head(&store, request.input).await.map(S3Response::new)
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.copy(&store, request.input).await.map(S3Response::new)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let store = self.store(request.credentials.as_ref())?;
        let DeleteObjectInput { bucket, key, version_id, .. } = &request.input;
        let DeleteObjectInput { if_match, if_match_size, if_match_last_modified_time, .. } = &request.input;
        if if_match.is_some() || if_match_size.is_some() || if_match_last_modified_time.is_some() {
            return Err(conditional_deletion());
        }
        self.remove(&store, bucket, key, version_id.as_deref()).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.remove_many(&store, request.input).await.map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.begin_upload(&store, request.input).await.map(S3Response::new)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.put_part(&store, request).await.map(S3Response::new)
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> Answer<UploadPartCopyOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.copy_part(&store, request.input).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.complete_upload(&store, request.input).await.map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let store = self.store(request.credentials.as_ref())?;
        let AbortMultipartUploadInput { bucket, key, upload_id, .. } = &request.input;
        self.abort_upload(&store, &UploadName::new(bucket, key, upload_id)?).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.parts(&store, request.input).await.map(S3Response::new)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let store = self.store(request.credentials.as_ref())?;
        self.uploads(&store, request.input).await.map(S3Response::new)
    }
}
