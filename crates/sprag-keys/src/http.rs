//! One request and its answer, to a key service.

use std::io::Read;
use std::sync::Arc;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use zeroize::Zeroizing;

use crate::{SourceError, sys};

/// A client for one address. What it sends are secrets: it speaks TLS except to this machine itself, follows no redirect,
/// and waits 10 seconds at most.
pub(crate) struct Http {
    agent: Agent,
    base: String,
    authority: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Http {
    /// `roots`: certificates in PEM to trust instead of those of the system.
    pub(crate) fn new(address: &str, roots: Option<&[u8]>) -> Result<Self, SourceError> {
        let uri: Uri = address.parse().map_err(|_| SourceError::Address)?;
        let host = uri.host().filter(|host| !host.is_empty());
        let authority = uri.authority().ok_or(SourceError::Address)?.as_str();
        let (Some(host), None) = (host, uri.query()) else {
            return Err(SourceError::Address);
        };
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") if sys::is_loopback(host) => true,
            _ => return Err(SourceError::Address),
        };
        if authority.contains('@') || address.contains('#') {
            return Err(SourceError::Address);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(sys::PATIENCE))
            .user_agent(concat!("sprag-keys/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(roots)?);
        // What goes to this machine in the clear goes through no proxy.
        let config = if plain { config.proxy(None) } else { config };
        let authority = authority.to_owned();
        let base = address.trim_end_matches('/').to_owned();
        let agent = config.build().new_agent();
        Ok(Self {
            agent,
            base,
            authority,
        })
    }

    /// The `Host` of requests.
    #[cfg(feature = "aws-kms")]
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the address has a path.
    #[cfg(feature = "aws-kms")]
    pub(crate) fn has_path(&self) -> bool {
        !self.base.ends_with(&self.authority)
    }

    #[cfg(feature = "vault-kv")]
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, SourceError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    pub(crate) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, SourceError> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        request = request.header("host", &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }
}

fn tls(roots: Option<&[u8]>) -> Result<TlsConfig, SourceError> {
    let roots = match roots {
        None => RootCerts::PlatformVerifier,
        Some(pem) => {
            let mut certificates = Vec::new();
            for item in parse_pem(pem) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                    Ok(_) => {}
                    Err(_) => return Err(SourceError::Malformed),
                }
            }
            if certificates.is_empty() {
                return Err(SourceError::Malformed);
            }
            RootCerts::from(certificates)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, SourceError> {
    let response = response.map_err(unavailable)?;
    let status = response.status().as_u16();
    // With this capacity the buffer never moves, which would leave a copy of the key behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY + 64));
    let reader = response.into_body().into_with_config();
    let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    let mut reader = reader.limit(limit).reader();
    match reader.read_to_end(&mut body) {
        Ok(_) => Ok(Answer { status, body }),
        Err(_) if body.len() >= MAX_BODY => Err(SourceError::Malformed),
        Err(error) => Err(SourceError::Unavailable(Some(Arc::new(error)))),
    }
}

fn unavailable(error: ureq::Error) -> SourceError {
    match error {
        // A header that we made of what the caller gave.
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => SourceError::Denied,
        error => SourceError::Unavailable(Some(Arc::new(error))),
    }
}

/// The most bytes of an answer.
const MAX_BODY: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_through_tls_or_stay_on_this_machine() {
        for address in [
            "https://vault.example:8200",
            "https://vault.example/behind/a/path/",
            "http://127.0.0.1:8200",
            "http://127.1.2.3",
            "http://[::1]:8200",
            "http://localhost:8200/",
        ] {
            assert!(Http::new(address, None).is_ok(), "{address}");
        }
        for address in [
            "",
            "vault.example",
            "http://vault.example:8200",
            "http://10.0.0.1",
            "http://128.0.0.1",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://[::2]",
            "ftp://127.0.0.1",
            "https://user:secret@vault.example",
            "https://vault.example?x=1",
            "https://vault.example#x",
            "https://",
        ] {
            assert!(
                matches!(Http::new(address, None), Err(SourceError::Address)),
                "{address}"
            );
        }
    }

    #[test]
    fn certificates_that_are_none_are_not_trusted_silently() {
        for pem in ["", "not a certificate"] {
            let client = Http::new("https://vault.example", Some(pem.as_bytes()));
            assert!(matches!(client, Err(SourceError::Malformed)), "{pem}");
        }
    }
}
