//! Blobs in a bucket of S3, or of what speaks like it.
//!
//! `object_store` knows S3; its requests go through the HTTP client that the rest of this library uses, and are signed with the
//! primitives of `sprag-crypto`: so no second client, and no second implementation of TLS and hashes.

use std::fmt;
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, HttpClient, HttpConnector,
    HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, Signer, SigningAlgorithm,
};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use tokio::runtime::{Builder, Handle, Runtime};
use ureq::Agent;
use ureq::http::{Method, Request, Response};
use zeroize::Zeroizing;

use super::http::agent;
use super::{BackendError, MAX_BLOB, MemoryBackend, StoredBlob, is_blob_name};
use crate::sys;

/// Names in one page of a list.
const PAGE: usize = 1_000;

/// Which bucket, where, and who asks.
#[derive(Clone)]
#[non_exhaustive]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// Its region, such as `eu-central-1`.
    pub region: String,
    /// Where it is, if not at AWS: `https://…`, or `http://` of this machine.
    pub endpoint: Option<String>,
    /// What stands before the names of blobs, without a slash at its end; empty: nothing.
    pub prefix: String,
    /// Who asks.
    pub access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl S3Options {
    /// A bucket at AWS, and who asks for it.
    #[must_use]
    pub fn new(bucket: &str, region: &str, access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            endpoint: None,
            prefix: String::new(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Zeroizing::new(secret_access_key.to_owned()),
            session_token: None,
        }
    }

    /// With the token of temporary credentials.
    #[must_use]
    pub fn session_token(mut self, token: &str) -> Self {
        self.session_token = Some(Zeroizing::new(token.to_owned()));
        self
    }

    /// At this address instead of at AWS, the bucket in the path.
    #[must_use]
    pub fn endpoint(mut self, address: &str) -> Self {
        self.endpoint = Some(address.trim_end_matches('/').to_owned());
        self
    }

    /// Below this prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.trim_matches('/').to_owned();
        self
    }
}

/// A bucket of blobs. Speaks TLS, except to this machine itself; tries a request three times within half a minute.
#[derive(Clone)]
pub struct S3Backend {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    driver: Arc<Driver>,
}

/// Drives requests on the thread of whoever waits for them, also within a runtime of the application.
struct Driver(Option<Runtime>);

impl Driver {
    fn block_on<T: Send>(
        &self,
        request: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let runtime = self.0.as_ref().ok_or(BackendError::Unavailable(None))?;
        let drive = || runtime.block_on(request);
        if Handle::try_current().is_err() {
            return drive();
        }
        // A thread that is within a runtime cannot drive a second one.
        sys::aside(drive).unwrap_or(Err(BackendError::Unavailable(None)))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Otherwise it waits for threads that it has not got, which is forbidden within a runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for S3Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Backend").finish_non_exhaustive()
    }
}

impl S3Backend {
    /// The bucket that these options name. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`BackendError::Refused`]: no address, region or bucket that there could be.
    pub fn new(options: &S3Options) -> Result<Self, BackendError> {
        let store = bucket(options)?;
        Self::over(Arc::new(store), &options.prefix)
    }

    fn over(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, BackendError> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(BackendError::unavailable)?;
        Ok(Self {
            store,
            prefix: prefix.to_owned(),
            driver: Arc::new(Driver(Some(runtime))),
        })
    }

    fn path(&self, name: &str) -> Result<Path, BackendError> {
        if !is_blob_name(name) {
            return Err(BackendError::Refused(None));
        }
        let path = match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        };
        Path::parse(path).map_err(BackendError::refused)
    }
}

fn bucket(options: &S3Options) -> Result<AmazonS3, BackendError> {
    let endpoint = options.endpoint.as_deref();
    let agent = agent(endpoint.unwrap_or("https://amazonaws.com"), None);
    let agent = agent.ok_or(BackendError::Refused(None))?;
    let retry = RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(30),
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(&options.region)
        .with_access_key_id(&options.access_key_id)
        .with_secret_access_key(options.secret_access_key.as_str())
        .with_retry(retry)
        .with_crypto_provider(Arc::new(Primitives))
        .with_http_connector(Connector(agent));
    if let Some(token) = &options.session_token {
        builder = builder.with_token(token.as_str());
    }
    if let Some(endpoint) = endpoint {
        // In the clear only to this machine: `agent` has seen to it.
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    builder.build().map_err(BackendError::refused)
}

fn failed(error: object_store::Error) -> BackendError {
    use object_store::Error as Failure;
    match error {
        Failure::NotFound { .. }
        | Failure::InvalidPath { .. }
        | Failure::NotSupported { .. }
        | Failure::PermissionDenied { .. }
        | Failure::Unauthenticated { .. }
        | Failure::UnknownConfigurationKey { .. } => BackendError::refused(error),
        error => BackendError::unavailable(error),
    }
}

impl MemoryBackend for S3Backend {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        let path = self.path(name)?;
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.store.put(&path, payload);
        self.driver
            .block_on(async { put.await.map(drop).map_err(failed) })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let path = self.path(name)?;
        self.driver.block_on(async {
            let found = match self.store.get(&path).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(failed)?,
            };
            let most = u64::try_from(MAX_BLOB).unwrap_or(u64::MAX);
            if found.meta.size > most {
                return Err(BackendError::Refused(None));
            }
            Ok(Some(found.bytes().await.map_err(failed)?.to_vec()))
        })
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        let prefix = Some(Path::from(self.prefix.as_str())).filter(|_| !self.prefix.is_empty());
        let listed = match after {
            Some(after) => {
                let after = self.path(after)?;
                self.store.list_with_offset(prefix.as_ref(), &after)
            }
            None => self.store.list(prefix.as_ref()),
        };
        let page = listed
            .try_filter_map(|found| async move {
                let name = found.location.filename().unwrap_or_default();
                let put_at = u64::try_from(found.last_modified.timestamp_millis()).ok();
                let blob = StoredBlob::new(name, put_at);
                Ok(Some(blob).filter(|blob| is_blob_name(&blob.name)))
            })
            .take(PAGE)
            .try_collect::<Vec<_>>();
        let mut page = self.driver.block_on(async { page.await.map_err(failed) })?;
        // S3 lists in this order; what only resembles it may not.
        page.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(page)
    }

    fn delete(&self, name: &str) -> Result<(), BackendError> {
        let path = self.path(name)?;
        self.driver.block_on(async {
            match self.store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted.map_err(failed),
            }
        })
    }
}

/// Gives `object_store` our HTTP client.
#[derive(Debug)]
struct Connector(Agent);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Agent);

type Answering<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Service {
    // Blocks the thread: it is that of the caller, who waits for nothing else.
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> Answering<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let has_no_body = matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
            let response = if body.is_empty() && has_no_body {
                self.0.run(Request::from_parts(parts, ()))
            } else {
                self.0.run(Request::from_parts(parts, body.as_ref()))
            };
            let (parts, body) = response.map_err(unanswered)?.into_parts();
            // What is longer is refused by its length before, or cut here and refused by its hash after.
            let limit = u64::try_from(MAX_BLOB)
                .unwrap_or(u64::MAX)
                .saturating_add(1);
            let reader = body
                .into_with_config()
                .limit(limit.saturating_add(1))
                .reader();
            let mut bytes = Vec::new();
            let read = reader.take(limit).read_to_end(&mut bytes);
            read.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            Ok(Response::from_parts(parts, bytes.into()))
        })
    }
}

fn unanswered(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => HttpErrorKind::Connect,
        ureq::Error::Io(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

/// Gives `object_store` our primitives: it signs with them.
#[derive(Debug)]
struct Primitives;

impl CryptoProvider for Primitives {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Gathered::default())),
            _ => Err(not_ours()),
        }
    }

    fn hmac(
        &self,
        algorithm: DigestAlgorithm,
        secret: &[u8],
    ) -> object_store::Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Gathered {
                key: Zeroizing::new(secret.to_vec()),
                ..Gathered::default()
            })),
            _ => Err(not_ours()),
        }
    }

    fn sign(&self, _: SigningAlgorithm, _: &[u8]) -> object_store::Result<Box<dyn Signer>> {
        Err(not_ours())
    }
}

fn not_ours() -> object_store::Error {
    object_store::Error::NotSupported {
        source: "S3 needs SHA-256 alone".into(),
    }
}

/// What is hashed, gathered: texts to sign, and blobs that are in memory anyway.
#[derive(Default)]
struct Gathered {
    key: Zeroizing<Vec<u8>>,
    data: Zeroizing<Vec<u8>>,
    result: Zeroizing<[u8; 32]>,
}

impl DigestContext for Gathered {
    fn update(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.result = Zeroizing::new(sprag_crypto::sha256(&[&self.data]));
        Ok(self.result.as_slice())
    }
}

impl HmacContext for Gathered {
    fn update(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.result = sprag_crypto::hmac(&self.key, &[&self.data]);
        Ok(self.result.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::super::conformance;
    use super::*;

    #[test]
    fn bucket_keeps_what_a_backend_promises() {
        for prefix in ["", "ann/blobs"] {
            let backend = S3Backend::over(Arc::new(InMemory::new()), prefix).unwrap();
            conformance::check(&backend);
        }
    }

    #[test]
    fn bucket_is_used_and_let_go_within_a_runtime_of_the_application() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let backend = S3Backend::over(Arc::new(InMemory::new()), "").unwrap();
            conformance::check(&backend);
            drop(backend);
        });
    }

    #[test]
    fn what_else_is_in_the_bucket_is_no_blob() {
        let store = Arc::new(InMemory::new());
        let backend = S3Backend::over(store.clone(), "mine").unwrap();
        let other = S3Backend::over(store, "other").unwrap();
        let (name, bytes) = conformance::blob(1);
        other.put(&name, &bytes).unwrap();
        assert_eq!(backend.get(&name).unwrap(), None);
        assert!(backend.list(None).unwrap().is_empty());
        for name in ["", "..", "../other/x"] {
            assert!(backend.get(name).is_err(), "{name}");
            assert!(backend.put(name, b"x").is_err(), "{name}");
        }
    }

    #[test]
    fn requests_go_through_tls_or_stay_on_this_machine() {
        let options = || S3Options::new("bucket", "eu-central-1", "id", "secret");
        assert!(S3Backend::new(&options()).is_ok());
        for address in ["http://127.0.0.1:9000", "https://s3.example"] {
            assert!(
                S3Backend::new(&options().endpoint(address)).is_ok(),
                "{address}"
            );
        }
        for address in [
            "http://s3.example",
            "ftp://127.0.0.1",
            "s3.example",
            "https://a:b@s3.example",
        ] {
            assert!(
                S3Backend::new(&options().endpoint(address)).is_err(),
                "{address}"
            );
        }
        assert!(!format!("{:?}", options()).contains("secret"));
    }

    #[test]
    fn bucket_that_is_not_there_is_retried_later() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let options = S3Options::new("bucket", "eu-central-1", "id", "secret").endpoint(&address);
        let error = S3Backend::new(&options)
            .unwrap()
            .get(&conformance::blob(1).0);
        assert!(error.unwrap_err().is_retryable());
    }

    /// A server that tests/kms/serve.py runs; it ends when its standard input does.
    struct Moto(std::process::Child);

    impl Moto {
        /// The server, and what it says: address, bucket, access key id, secret access key.
        fn start() -> (Self, Vec<String>) {
            use std::io::BufRead;
            use std::process::{Command, Stdio};
            let python = std::env::var_os("SPRAG_KMS_PYTHON").expect("run by `cargo xtask ci kms`");
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kms/serve.py");
            let mut child = Command::new(python)
                .args([script, "s3"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let mut said = std::io::BufReader::new(child.stdout.as_mut().unwrap());
            said.read_line(&mut line).unwrap();
            (
                Self(child),
                line.split_whitespace().map(str::to_owned).collect(),
            )
        }
    }

    impl Drop for Moto {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }

    #[test]
    #[ignore = "needs moto, which `cargo xtask ci kms` installs"]
    fn server_that_checks_signatures_keeps_what_a_backend_promises() {
        let (_moto, words) = Moto::start();
        let [address, bucket, id, secret] = &words[..] else {
            panic!("{words:?}");
        };
        let options = |secret: &str| {
            let options = S3Options::new(bucket, "eu-central-1", id, secret);
            options.endpoint(address).prefix("a/b")
        };
        let backend = S3Backend::new(&options(secret)).unwrap();
        conformance::check(&backend);
        // More than one page.
        let mut names: Vec<String> = (0..1_205)
            .map(|number| conformance::blob(number).0)
            .collect();
        for number in 0..1_205 {
            let (name, bytes) = conformance::blob(number);
            backend.put(&name, &bytes).unwrap();
        }
        names.sort();
        let first = backend.list(None).unwrap();
        assert_eq!(first.len(), PAGE);
        let second = backend.list(Some(&first[PAGE - 1].name)).unwrap();
        let listed = first.into_iter().chain(second).map(|blob| blob.name);
        assert_eq!(listed.collect::<Vec<_>>(), names);
        let stranger = S3Backend::new(&options("another secret")).unwrap();
        let refused = stranger.get(&names[0]).unwrap_err();
        assert!(!refused.is_retryable());
    }
}
