//! Keys that AWS KMS wraps.

use std::collections::BTreeMap;
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::http::{Answer, Http};
use crate::sigv4::{self, Request, Scope};
use crate::{DataKey, Envelope, SourceError, encoding, json, sys};

/// A key in AWS KMS that wraps other keys: `GenerateDataKey` and `Decrypt`, and `Encrypt` for [`wrap`](Envelope::wrap). It never leaves AWS; what is kept beside the
/// data is the wrapped key. A [`RingSeal`](crate::RingSeal) keeps it at its head.
///
/// The encryption context is bound to the wrapped key: what was wrapped in one context is not unwrapped in another. It
/// appears in the logs of AWS in the clear.
///
/// Every call is one signed request and waits 10 seconds at most.
pub struct AwsKms {
    http: Http,
    region: String,
    key_id: String,
    context: BTreeMap<String, String>,
    credentials: Box<dyn Fn() -> Result<AwsCredentials, SourceError> + Send + Sync>,
}

/// Which key in which region.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AwsKmsConfig {
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// The id of the key, its ARN, or an alias as `alias/name`.
    pub key_id: String,
    /// The encryption context; empty unless set.
    pub context: BTreeMap<String, String>,
    /// The address; that of the region unless set.
    pub endpoint: Option<String>,
    /// Certificates in PEM to trust, instead of those of the system.
    pub roots: Option<Vec<u8>>,
}

impl AwsKmsConfig {
    /// A key in a region, without a context.
    #[must_use]
    pub fn new(region: impl Into<String>, key_id: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            key_id: key_id.into(),
            context: BTreeMap::new(),
            endpoint: None,
            roots: None,
        }
    }
}

/// What requests are signed with.
#[derive(Clone)]
pub struct AwsCredentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl AwsCredentials {
    /// An access key, with the token of its session if it is a temporary one.
    #[must_use]
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: Option<String>,
    ) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: Zeroizing::new(secret_access_key.into()),
            session_token: session_token.map(Zeroizing::new),
        }
    }

    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if set, `AWS_SESSION_TOKEN`.
    ///
    /// # Errors
    ///
    /// [`SourceError::Denied`] if one of the first two is not set.
    pub fn from_env() -> Result<Self, SourceError> {
        let variable = |name: &str| {
            let text = sys::read_env(name).ok()?;
            let text = std::str::from_utf8(&text).ok()?.trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let (Some(id), Some(secret)) = (
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
        ) else {
            return Err(SourceError::Denied);
        };
        Ok(Self::new(id, secret, variable("AWS_SESSION_TOKEN")))
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials").finish_non_exhaustive()
    }
}

impl AwsKms {
    /// A key. `credentials` is asked at each call, so that they can be renewed meanwhile; see
    /// [`AwsCredentials::from_env`].
    ///
    /// # Errors
    ///
    /// [`SourceError::Address`] for an endpoint that secrets should not go to, or a region that is none;
    /// [`SourceError::Malformed`] for roots that are no certificates.
    pub fn new(
        config: &AwsKmsConfig,
        credentials: impl Fn() -> Result<AwsCredentials, SourceError> + Send + Sync + 'static,
    ) -> Result<Self, SourceError> {
        let region = config.region.as_str();
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if region.is_empty() || region.len() > 32 || !region.bytes().all(plain) {
            return Err(SourceError::Address);
        }
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        let endpoint = config.endpoint.clone();
        let endpoint =
            endpoint.unwrap_or_else(|| format!("https://kms.{region}.amazonaws.com{china}"));
        let http = Http::new(&endpoint, config.roots.as_deref())?;
        if http.has_path() {
            return Err(SourceError::Address);
        }
        Ok(Self {
            http,
            region: region.to_owned(),
            key_id: config.key_id.clone(),
            context: config.context.clone(),
            credentials: Box::new(credentials),
        })
    }

    fn call(&self, action: &str, body: &impl Serialize) -> Result<Answer, SourceError> {
        // The body may have a key in it: of its final size from the start, so that no copy is left behind.
        let mut room = Room(0);
        serde_json::to_writer(&mut room, body).map_err(|_| SourceError::Malformed)?;
        let mut text = Zeroizing::new(Vec::with_capacity(room.0));
        serde_json::to_writer(&mut *text, body).map_err(|_| SourceError::Malformed)?;
        let body = text;
        let credentials = (self.credentials)()?;
        let time = sigv4::amz_date(sys::unix_time());
        let target = format!("TrentService.{action}");
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", self.http.authority()),
            ("x-amz-date", &time),
        ];
        if let Some(token) = &credentials.session_token {
            headers.push(("x-amz-security-token", token));
        }
        headers.push(("x-amz-target", &target));
        let request = Request {
            method: "POST",
            path: "/",
            headers: &headers,
            body: &body,
        };
        let scope = Scope {
            access_key_id: &credentials.access_key_id,
            secret_access_key: &credentials.secret_access_key,
            region: &self.region,
            service: "kms",
            time: &time,
        };
        let authorization = sigv4::authorization(&request, &scope);
        headers.retain(|(name, _)| *name != "host");
        headers.push(("authorization", &authorization));
        let answer = self.http.post("/", &headers, &body)?;
        match answer.status {
            200 => Ok(answer),
            status => Err(refusal(status, &answer.body)),
        }
    }
}

impl Envelope for AwsKms {
    fn generate(&self) -> Result<DataKey, SourceError> {
        let request = GenerateDataKey {
            key_id: &self.key_id,
            key_spec: "AES_256",
            encryption_context: &self.context,
        };
        let answer = self.call("GenerateDataKey", &request)?;
        let reply: Reply =
            serde_json::from_slice(&answer.body).map_err(|_| SourceError::Malformed)?;
        let wrapped = reply.ciphertext_blob.ok_or(SourceError::Malformed)?;
        let wrapped = json::bytes(wrapped, DataKey::MAX_WRAPPED).ok_or(SourceError::Malformed)?;
        DataKey::new(key(reply.plaintext)?, wrapped.to_vec())
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, SourceError> {
        if wrapped.is_empty() || wrapped.len() > DataKey::MAX_WRAPPED {
            return Err(SourceError::Malformed);
        }
        let request = Decrypt {
            key_id: &self.key_id,
            ciphertext_blob: json::to_base64(wrapped),
            encryption_context: &self.context,
        };
        let answer = self.call("Decrypt", &request)?;
        let reply: Reply =
            serde_json::from_slice(&answer.body).map_err(|_| SourceError::Malformed)?;
        key(reply.plaintext)
    }

    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, SourceError> {
        let plaintext = encoding::to_base64(key);
        let request = Encrypt {
            key_id: &self.key_id,
            plaintext: &plaintext,
            encryption_context: &self.context,
        };
        let answer = self.call("Encrypt", &request)?;
        let reply: Wrapped =
            serde_json::from_slice(&answer.body).map_err(|_| SourceError::Malformed)?;
        let wrapped = json::bytes(reply.ciphertext_blob, DataKey::MAX_WRAPPED);
        let wrapped = wrapped.ok_or(SourceError::Malformed)?;
        // What shows the key is not kept.
        Ok(DataKey::new(Zeroizing::new(*key), wrapped.to_vec())?.into_wrapped())
    }
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").finish_non_exhaustive()
    }
}

fn key(raw: &RawValue) -> Result<Zeroizing<[u8; 32]>, SourceError> {
    let bytes = json::bytes(raw, 32).ok_or(SourceError::Malformed)?;
    let key = bytes.as_slice().try_into().map(Zeroizing::new);
    key.map_err(|_| SourceError::Malformed)
}

/// What an answer other than a key means.
fn refusal(status: u16, body: &[u8]) -> SourceError {
    let fault: Option<Fault> = serde_json::from_slice(body).ok();
    let fault = fault.map_or(String::new(), |fault| fault.kind);
    // The type may have the name of its service in front.
    let kind = fault.rsplit('#').next().unwrap_or("");
    match kind {
        "NotFoundException" => SourceError::NotFound,
        "DisabledException" | "KMSInvalidStateException" => SourceError::Disabled,
        "InvalidCiphertextException" | "IncorrectKeyException" | "InvalidKeyUsageException" => {
            SourceError::Malformed
        }
        "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "KMSInternalException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "Throttling" => SourceError::Unavailable(None),
        _ if status == 429 || status >= 500 => SourceError::Unavailable(None),
        _ if (400..500).contains(&status) => SourceError::Denied,
        _ => SourceError::Malformed,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateDataKey<'a> {
    key_id: &'a str,
    key_spec: &'a str,
    encryption_context: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt<'a> {
    key_id: &'a str,
    ciphertext_blob: String,
    encryption_context: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt<'a> {
    key_id: &'a str,
    plaintext: &'a str,
    encryption_context: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wrapped<'a> {
    #[serde(borrow)]
    ciphertext_blob: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    #[serde(borrow)]
    plaintext: &'a RawValue,
    #[serde(borrow)]
    ciphertext_blob: Option<&'a RawValue>,
}

/// Counts what is written.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "__type")]
    kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let credentials = AwsCredentials::new("id", "secret", Some("token".to_owned()));
        assert_eq!(format!("{credentials:?}"), "AwsCredentials { .. }");
        let config = AwsKmsConfig::new("eu-central-1", "alias/sprag");
        let kms = AwsKms::new(&config, move || Ok(credentials.clone())).unwrap();
        assert_eq!(format!("{kms:?}"), "AwsKms { .. }");
        assert_eq!(kms.http.authority(), "kms.eu-central-1.amazonaws.com");
    }

    #[test]
    fn regions_and_endpoints_that_are_none_are_refused() {
        let none = || Err(SourceError::Denied);
        for region in ["", "eu central", "evil.example/", "EU", &"x".repeat(33)] {
            let config = AwsKmsConfig::new(region, "k");
            assert!(matches!(
                AwsKms::new(&config, none),
                Err(SourceError::Address)
            ));
        }
        for endpoint in ["http://kms.example", "https://kms.example/path"] {
            let mut config = AwsKmsConfig::new("eu-central-1", "k");
            config.endpoint = Some(endpoint.to_owned());
            assert!(matches!(
                AwsKms::new(&config, none),
                Err(SourceError::Address)
            ));
        }
    }

    #[test]
    fn each_fault_of_the_service_is_told_as_what_to_do_about_it() {
        let of =
            |status, kind: &str| refusal(status, format!(r#"{{"__type":"{kind}"}}"#).as_bytes());
        assert!(matches!(
            of(400, "NotFoundException"),
            SourceError::NotFound
        ));
        assert!(matches!(
            of(400, "com.amazonaws.kms#DisabledException"),
            SourceError::Disabled
        ));
        assert!(matches!(
            of(400, "InvalidCiphertextException"),
            SourceError::Malformed
        ));
        assert!(matches!(
            of(400, "AccessDeniedException"),
            SourceError::Denied
        ));
        assert!(of(400, "ThrottlingException").is_retryable());
        assert!(refusal(503, b"<html>").is_retryable());
        assert!(refusal(429, b"").is_retryable());
        assert!(matches!(refusal(301, b""), SourceError::Malformed));
    }
}
