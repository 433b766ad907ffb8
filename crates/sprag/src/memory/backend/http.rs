//! Blobs at an HTTP server (`docs/MEMORY.md`, *An HTTP blob store*).

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use zeroize::Zeroizing;

use super::{BackendError, MAX_BLOB, MemoryBackend, StoredBlob, is_blob_name};
use crate::sys;

/// How long a request may take, as a whole.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest page of a list, in bytes.
const MAX_LIST: usize = 1 << 20;

/// An HTTP server that keeps blobs: `PUT`, `GET` and `DELETE` of `<base>/<name>`, and `GET <base>/?after=<name>` for a list. Speaks TLS,
/// except to this machine itself; follows no redirect; waits a minute for each call.
#[derive(Clone)]
pub struct HttpBackend {
    agent: Agent,
    base: String,
    token: Option<Zeroizing<String>>,
}

impl fmt::Debug for HttpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBackend").finish_non_exhaustive()
    }
}

impl HttpBackend {
    /// The server at this address: `https://…`, or `http://` of this machine, with a path if it has one, without query, fragment and
    /// password.
    ///
    /// # Errors
    /// [`BackendError::Refused`]: this is no such address.
    pub fn new(address: &str) -> Result<Self, BackendError> {
        Self::with_roots(address, None)
    }

    /// As [`new`](Self::new), and trusts these certificates, in PEM, instead of those of the system.
    ///
    /// # Errors
    /// [`BackendError::Refused`]: this is no such address, or there is no certificate.
    pub fn with_certificates(address: &str, pem: &[u8]) -> Result<Self, BackendError> {
        Self::with_roots(address, Some(pem))
    }

    fn with_roots(address: &str, pem: Option<&[u8]>) -> Result<Self, BackendError> {
        Ok(Self {
            agent: agent(address, pem).ok_or(BackendError::Refused(None))?,
            base: address.trim_end_matches('/').to_owned(),
            token: None,
        })
    }

    /// Shows this to the server with each request: `Authorization: Bearer <token>`.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(Zeroizing::new(format!("Bearer {token}")));
        self
    }

    fn url(&self, name: &str) -> Result<String, BackendError> {
        if !is_blob_name(name) {
            return Err(BackendError::Refused(None));
        }
        Ok(format!("{}/{name}", self.base))
    }

    /// The request, with what it shows to the server.
    fn showing<B>(&self, mut request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        if let Some(token) = &self.token {
            request = request.header("authorization", token.as_str());
        }
        request
    }
}

/// A client for one address; `None` if that is none.
pub(super) fn agent(address: &str, pem: Option<&[u8]>) -> Option<Agent> {
    let uri: Uri = address.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    let authority = uri.authority()?.as_str();
    let is_plain = match uri.scheme_str() {
        Some("https") => false,
        Some("http") if sys::is_loopback(host) => true,
        _ => return None,
    };
    if uri.query().is_some() || authority.contains('@') || address.contains('#') {
        return None;
    }
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .user_agent(concat!("sprag/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls(pem)?);
    // What goes to this machine in the clear goes through no proxy.
    let config = if is_plain { config.proxy(None) } else { config };
    Some(config.build().new_agent())
}

fn tls(pem: Option<&[u8]>) -> Option<TlsConfig> {
    let roots = match pem {
        None => RootCerts::PlatformVerifier,
        Some(pem) => {
            let mut certificates = Vec::new();
            for item in parse_pem(pem) {
                if let PemItem::Certificate(certificate) = item.ok()? {
                    certificates.push(certificate);
                }
            }
            if certificates.is_empty() {
                return None;
            }
            RootCerts::from(certificates)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(provider);
    Some(tls.build())
}

/// What the server says.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Reads an answer of at most `most` bytes.
fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    most: usize,
) -> Result<Answer, BackendError> {
    let response = response.map_err(|error| match error {
        // A header that was made of what the caller gave.
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => BackendError::refused(error),
        error => BackendError::unavailable(error),
    })?;
    let status = response.status().as_u16();
    let said = response.headers().get("content-length");
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|said| said > most) {
        return Err(BackendError::Refused(None));
    }
    let limit = u64::try_from(most.saturating_add(1)).unwrap_or(u64::MAX);
    let mut body = Vec::with_capacity(said.unwrap_or(0));
    let reader = response.into_body().into_with_config();
    let mut reader = reader.limit(limit.saturating_add(1)).reader().take(limit);
    reader
        .read_to_end(&mut body)
        .map_err(BackendError::unavailable)?;
    if body.len() > most {
        return Err(BackendError::Refused(None));
    }
    Ok(Answer { status, body })
}

/// What a status means that is not the one hoped for.
pub(super) fn refusal(status: u16) -> BackendError {
    match status {
        408 | 425 | 429 | 500..=599 => BackendError::Unavailable(None),
        _ => BackendError::Refused(None),
    }
}

impl MemoryBackend for HttpBackend {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        let request = self.agent.put(self.url(name)?);
        let request = request.header("content-type", "application/octet-stream");
        match answer(self.showing(request).send(bytes), MAX_LIST)?.status {
            200..=299 => Ok(()),
            status => Err(refusal(status)),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let request = self.agent.get(self.url(name)?);
        let answer = answer(self.showing(request).call(), MAX_BLOB)?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 | 410 => Ok(None),
            status => Err(refusal(status)),
        }
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        let after = after.unwrap_or_default();
        let request = self.agent.get(format!("{}/?after={after}", self.base));
        let answer = answer(self.showing(request).call(), MAX_LIST)?;
        if answer.status != 200 {
            return Err(refusal(answer.status));
        }
        let refused = || BackendError::Refused(None);
        let text = str::from_utf8(&answer.body).map_err(|_| refused())?;
        let mut page: Vec<StoredBlob> = Vec::new();
        for line in text.lines() {
            let (name, put_at) = match line.split_once(' ') {
                Some((name, put_at)) => (name, Some(put_at.parse().map_err(|_| refused())?)),
                None => (line, None),
            };
            let before = page.last().map_or(after, |last| &last.name);
            if !is_blob_name(name) || name <= before {
                return Err(refused());
            }
            page.push(StoredBlob::new(name, put_at));
        }
        Ok(page)
    }

    fn delete(&self, name: &str) -> Result<(), BackendError> {
        let request = self.agent.delete(self.url(name)?);
        match answer(self.showing(request).call(), MAX_LIST)?.status {
            200..=299 | 404 | 410 => Ok(()),
            status => Err(refusal(status)),
        }
    }
}

#[cfg(test)]
mod tests;
