//! Objects in a bucket, by the crate `object_store`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::Object;

/// How long a request may take: a volume of 100 megabytes over a line of 2 megabits a second.
const TIMEOUT: &str = "400s";

/// How often a request is repeated, with growing pauses: some seconds altogether, so that a wrong address is soon known.
const MOST_RETRIES: usize = 8;

/// Where requests wait for their answers; all threads of the program share it.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build()
});

/// Stores by scheme and bucket: each keeps its connections and its credentials.
static STORES: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct InBucket {
    store: Arc<dyn ObjectStore>,
    /// Scheme and bucket.
    bucket: String,
    key: Key,
}

/// The object at an address.
pub(super) fn open(address: &str) -> io::Result<Box<dyn Object>> {
    let (scheme, place) = address.split_once("://").unwrap_or_default();
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("the address names no bucket, expected {scheme}://BUCKET/KEY"),
        ));
    }
    let key = parse_key(key)?;
    let mut stores = STORES.lock().expect("no thread panics while it looks");
    let name = format!("{scheme}://{bucket}");
    let store = match stores.get(&name) {
        Some(store) => store.clone(),
        None => {
            let store: Arc<dyn ObjectStore> = match scheme {
                "memory" => Arc::new(InMemory::new()),
                _ => s3(bucket)?,
            };
            stores.entry(name.clone()).or_insert(store).clone()
        }
    };
    Ok(Box::new(InBucket {
        store,
        bucket: name,
        key,
    }))
}

fn parse_key(key: &str) -> io::Result<Key> {
    Key::parse(key).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error.to_string()))
}

fn s3(bucket: &str) -> io::Result<Arc<dyn ObjectStore>> {
    // Another library of the program may have been first with the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        // Whoever writes http:// into the endpoint means it.
        .with_allow_http(true)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), TIMEOUT)
        // Objects are deleted one by one, and not all servers can delete many.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            max_retries: MOST_RETRIES,
            retry_timeout: Duration::from_secs(180),
            ..RetryConfig::default()
        })
        .build();
    match store {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!(
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL do not say how to reach it: {error}"
            ),
        )),
    }
}

impl InBucket {
    /// Waits for an answer.
    fn wait<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        let runtime = RUNTIME.as_ref();
        let runtime = runtime.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let answer = runtime.block_on(request);
        answer.map_err(|error| io_error(&self.bucket, &error))
    }

    /// Bytes of the object, and how many it has.
    fn get(&self, range: Option<GetRange>) -> io::Result<(Vec<u8>, u64)> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        self.wait(async {
            let found = self.store.get_opts(&self.key, options).await?;
            let length = found.meta.size;
            Ok((found.bytes().await?.into(), length))
        })
    }
}

impl Object for InBucket {
    fn all(&self) -> io::Result<Vec<u8>> {
        Ok(self.get(None)?.0)
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        Ok(self.get(Some(GetRange::Bounded(range)))?.0)
    }

    fn end(&self, most: u64) -> io::Result<(Vec<u8>, u64)> {
        self.get(Some(GetRange::Suffix(most)))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.wait(self.store.head(&self.key))?.size)
    }

    fn put(&self, bytes: Vec<u8>) -> io::Result<()> {
        // In one request, which takes 5 GiB, more than the largest volume has: nothing is left of one that is interrupted.
        self.wait(self.store.put(&self.key, bytes.into()))?;
        Ok(())
    }

    fn delete(&self) -> io::Result<()> {
        match self.wait(self.store.delete(&self.key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let objects = self.store.list(Some(&self.key));
        let objects: Vec<_> = self.wait(objects.try_collect())?;
        let relative = |object: object_store::ObjectMeta| {
            let parts = object.location.prefix_match(&self.key)?;
            let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            Some((parts.join("/"), object.size))
        };
        Ok(objects.into_iter().filter_map(relative).collect())
    }

    fn download(&self, name: Option<&str>, file: &mut File) -> io::Result<()> {
        let key = match name {
            Some(name) => parse_key(&format!("{}/{name}", self.key))?,
            None => self.key.clone(),
        };
        let mut pieces = self.wait(self.store.get(&key))?.into_stream();
        while let Some(piece) = self.wait(pieces.try_next())? {
            file.write_all(&piece)?;
        }
        Ok(())
    }
}

/// What went wrong, with its causes, and what to do about it.
fn io_error(bucket: &str, error: &object_store::Error) -> io::Error {
    use object_store::Error as Found;
    /// Where a machine of Amazon's asks who it is, which is done for want of credentials.
    const METADATA_SERVICE: &str = "/latest/api/token";

    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    let (kind, advice) = match error {
        _ if text.contains("NoSuchBucket") => {
            let advice = format!("there is no bucket {bucket}; create it, or correct its name");
            return io::Error::other(advice);
        }
        Found::NotFound { .. } => {
            let message = format!("there is no such object in {bucket}");
            return io::Error::new(ErrorKind::NotFound, message);
        }
        Found::Unauthenticated { .. } | Found::PermissionDenied { .. } => (
            ErrorKind::PermissionDenied,
            "these credentials may not do this: see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        _ if text.contains(METADATA_SERVICE) => (
            ErrorKind::PermissionDenied,
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        _ => (
            ErrorKind::Other,
            "the bucket cannot be reached: see AWS_ENDPOINT_URL, AWS_REGION and AWS_ACCESS_KEY_ID",
        ),
    };
    io::Error::new(kind, format!("{advice} ({text})"))
}
