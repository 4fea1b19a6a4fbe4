//! Makes s3s-fs keep what it has confirmed: it renames finished files into place but never calls fsync.

use std::{
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use s3s::{S3, S3Request, S3Response, S3Result, dto::*, s3_error};
use s3s_fs::FileSystem;

use super::internal;

/// s3s-fs with a flush to disk between a write and its confirmation, and strict keys.
#[derive(Debug)]
pub(super) struct Durable {
    files: FileSystem,
    root: PathBuf,
}

impl Durable {
    pub(super) fn new(files: FileSystem, root: &Path) -> Self {
        Self { files, root: root.to_owned() }
    }

    /// Flushes an object, the folders above it and the root (s3s-fs keeps each object's attributes there).
    async fn flush(&self, bucket: &str, key: &str) -> S3Result<()> {
        let (root, bucket, key) = (self.root.clone(), bucket.to_owned(), key.to_owned());
        let flushed = tokio::task::spawn_blocking(move || flush_object(&root, &bucket, &key)).await;
        flushed.map_err(|error| internal(&io::Error::other(error)))?.map_err(|error| internal(&error))
    }
}

fn flush_object(root: &Path, bucket: &str, key: &str) -> io::Result<()> {
    let object = root.join(bucket).join(key);
    File::open(&object)?.sync_all()?;
    for folder in object.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A key is a path here, so only plain names between slashes are served.
fn check_key(key: &str) -> S3Result<()> {
    let plain = Path::new(key).components().all(|part| matches!(part, Component::Normal(_)));
    let tidy = !key.is_empty() && key.split('/').all(|part| !part.is_empty() && part != ".");
    if plain && tidy {
        Ok(())
    } else {
        Err(s3_error!(InvalidArgument, "keys are plain names joined by single slashes"))
    }
}

/// Passes each call on; `key` calls check their key first.
macro_rules! delegate {
    (
        any { $($name:ident($input:ident) -> $output:ident;)+ }
        keyed { $($keyed:ident($keyed_input:ident) -> $keyed_output:ident;)+ }
    ) => {
        #[async_trait::async_trait]
        impl S3 for Durable {
            $(async fn $name(&self, req: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$name(req).await
            })+

            $(async fn $keyed(&self, req: S3Request<$keyed_input>) -> S3Result<S3Response<$keyed_output>> {
                check_key(&req.input.key)?;
                self.files.$keyed(req).await
            })+

            async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                check_key(&req.input.key)?;
                let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
                let answer = self.files.put_object(req).await?;
                self.flush(&bucket, &key).await?;
                Ok(answer)
            }

            async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
                check_key(&req.input.key)?;
                if let CopySource::Bucket { key, .. } = &req.input.copy_source {
                    check_key(key)?;
                }
                let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
                let answer = self.files.copy_object(req).await?;
                self.flush(&bucket, &key).await?;
                Ok(answer)
            }

            async fn complete_multipart_upload(
                &self,
                req: S3Request<CompleteMultipartUploadInput>,
            ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
                check_key(&req.input.key)?;
                let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
                let answer = self.files.complete_multipart_upload(req).await?;
                self.flush(&bucket, &key).await?;
                Ok(answer)
            }

            async fn delete_objects(
                &self,
                req: S3Request<DeleteObjectsInput>,
            ) -> S3Result<S3Response<DeleteObjectsOutput>> {
                req.input.delete.objects.iter().try_for_each(|object| check_key(&object.key))?;
                self.files.delete_objects(req).await
            }
        }
    };
}

delegate! {
    any {
        create_bucket(CreateBucketInput) -> CreateBucketOutput;
        delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
        get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
        head_bucket(HeadBucketInput) -> HeadBucketOutput;
        list_buckets(ListBucketsInput) -> ListBucketsOutput;
        list_objects(ListObjectsInput) -> ListObjectsOutput;
        list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    }
    keyed {
        delete_object(DeleteObjectInput) -> DeleteObjectOutput;
        get_object(GetObjectInput) -> GetObjectOutput;
        head_object(HeadObjectInput) -> HeadObjectOutput;
        create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
        upload_part(UploadPartInput) -> UploadPartOutput;
        list_parts(ListPartsInput) -> ListPartsOutput;
        abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_keys_are_served() {
        assert!(check_key("media/0193a5c0-0000-7000-8000-000000000000").is_ok());
        for key in ["", "/", "../escape", "a/../b", "a//b", "dir/", "./a", "/etc/passwd"] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_flush_of_a_missing_object_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(flush_object(root.path(), "warren", "media/1").is_err());
    }
}
