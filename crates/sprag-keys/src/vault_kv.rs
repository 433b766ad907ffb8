//! Keys in HashiCorp Vault.

use std::collections::BTreeMap;
use std::fmt;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::http::{Answer, Http};
use crate::{
    KeyError, KeyId, KeySource, KeyVersion, SourceError, VersionedKey, encoding, json, sys,
};

/// Keys in the KV engine, version 2, of HashiCorp Vault or OpenBao: each key is a secret at
/// `<mount>/data/<prefix><name>`, whose field `key` holds 32 bytes in base64, 44 characters. The versions of the secret
/// are the versions of the key; its newest version is the current one.
///
/// Every call is one request and waits 10 seconds at most; nothing is kept in memory between two calls. The address is
/// `https://`, or `http://` to this machine itself; redirects are not followed, so name the active node or one that
/// forwards.
///
/// Whoever deletes a secret *with its metadata* in Vault makes version numbers begin anew. Do not.
pub struct VaultKv {
    http: Http,
    path: String,
    namespace: Option<String>,
    token: Box<dyn Fn() -> Result<Zeroizing<String>, SourceError> + Send + Sync>,
}

/// Where in Vault the keys are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VaultConfig {
    /// The address, such as `https://vault.example:8200`.
    pub address: String,
    /// Where the KV engine is mounted; `secret` unless set.
    pub mount: String,
    /// What precedes the names of keys in the path, such as `sprag/`; empty unless set.
    pub prefix: String,
    /// The namespace, where the server has some.
    pub namespace: Option<String>,
    /// Certificates in PEM to trust, instead of those of the system.
    pub roots: Option<Vec<u8>>,
}

impl VaultConfig {
    /// A server, with the engine at `secret` and no prefix.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            mount: "secret".to_owned(),
            prefix: String::new(),
            namespace: None,
            roots: None,
        }
    }
}

impl VaultKv {
    /// A server. `token` is asked for the token at each call, so that it can be renewed meanwhile.
    ///
    /// # Errors
    ///
    /// [`SourceError::Address`] for an address that secrets should not go to; [`SourceError::BadId`] for a mount or prefix
    /// with other characters than names have, and `/`; [`SourceError::Malformed`] for roots that are no certificates.
    pub fn new(
        config: &VaultConfig,
        token: impl Fn() -> Result<Zeroizing<String>, SourceError> + Send + Sync + 'static,
    ) -> Result<Self, SourceError> {
        let mount = config.mount.trim_matches('/');
        let prefix = config.prefix.trim_matches('/');
        let parts = mount.split('/');
        let parts = parts.chain(prefix.split('/').filter(|_| !prefix.is_empty()));
        for part in parts {
            KeyId::new(part)?;
        }
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self {
            http: Http::new(&config.address, config.roots.as_deref())?,
            path: format!("/v1/{mount}/{{}}/{prefix}"),
            namespace: config.namespace.clone(),
            token: Box::new(token),
        })
    }

    /// The server of `VAULT_ADDR` with the token of `VAULT_TOKEN`, in the namespace of `VAULT_NAMESPACE`, if set. The token
    /// is read at each call. `config` is given to be changed.
    ///
    /// # Errors
    ///
    /// [`SourceError::Address`] if `VAULT_ADDR` is not set or not acceptable, and as [`new`](Self::new).
    pub fn from_env(change: impl FnOnce(&mut VaultConfig)) -> Result<Self, SourceError> {
        let variable = |name: &str| {
            let text = sys::read_env(name).ok()?;
            String::from_utf8(text.to_vec()).ok()
        };
        let mut config = VaultConfig::new(variable("VAULT_ADDR").ok_or(SourceError::Address)?);
        config.namespace = variable("VAULT_NAMESPACE").filter(|name| !name.is_empty());
        change(&mut config);
        Self::new(&config, || match sys::read_env("VAULT_TOKEN") {
            Ok(text) => match std::str::from_utf8(&text) {
                Ok(token) => Ok(Zeroizing::new(token.trim().to_owned())),
                Err(_) => Err(SourceError::Denied),
            },
            Err(KeyError::NotFound | _) => Err(SourceError::Denied),
        })
    }

    /// Makes the first version of a key where there is no secret of this name, and none was deleted. Draws 32 bytes.
    ///
    /// # Errors
    ///
    /// [`SourceError::Conflict`] if there is one; it is left alone. [`SourceError`].
    pub fn create(
        &self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<VersionedKey, SourceError> {
        self.write(id, 0, rng)
    }

    /// Makes a new version of a key, which becomes the current one, if nobody else does so at the same time. Draws 32 bytes.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFound`]: no key is made. [`SourceError::Conflict`] if another was faster. [`SourceError`].
    pub fn rotate(
        &self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<VersionedKey, SourceError> {
        let current = self.current(id)?;
        self.write(id, current.version().get(), rng)
    }

    /// Destroys a version for good: whatever is still under it is lost.
    ///
    /// # Errors
    ///
    /// [`SourceError::StillCurrent`], [`SourceError::NotFound`], [`SourceError`].
    pub fn destroy(&self, id: &KeyId, version: KeyVersion) -> Result<(), SourceError> {
        match self.current(id) {
            Ok(current) if current.version() == version => return Err(SourceError::StillCurrent),
            Ok(_) | Err(SourceError::NoCurrent | SourceError::Malformed) => {}
            Err(error) => return Err(error),
        }
        match self.by_version(id, version) {
            Err(SourceError::Destroyed) => return Ok(()),
            Ok(_) | Err(SourceError::Disabled | SourceError::Malformed) => {}
            Err(error) => return Err(error),
        }
        let body = format!(r#"{{"versions":[{version}]}}"#);
        let answer = self.post("destroy", id, body.as_bytes())?;
        match answer.status {
            200 | 204 => Ok(()),
            status => Err(refusal(status, &answer.body)),
        }
    }

    fn read(&self, id: &KeyId, version: Option<KeyVersion>) -> Result<VersionedKey, SourceError> {
        let query = version.map(|version| format!("?version={version}"));
        let path = format!("{}{}", self.path("data", id), query.unwrap_or_default());
        let token = (self.token)()?;
        let answer = self.http.get(&path, &self.headers(&token))?;
        if !matches!(answer.status, 200 | 404) {
            return Err(refusal(answer.status, &answer.body));
        }
        let reply: Reply =
            serde_json::from_slice(&answer.body).map_err(|_| SourceError::Malformed)?;
        let Some(secret) = reply.data else {
            // An answer that is not found and says no more than that.
            return match answer.status {
                404 => Err(SourceError::NotFound),
                _ => Err(SourceError::Malformed),
            };
        };
        let found = KeyVersion::new(secret.metadata.version).ok_or(SourceError::Malformed)?;
        if version.is_some_and(|version| version != found) {
            return Err(SourceError::Malformed);
        }
        let deleted = !secret.metadata.deletion_time.is_empty();
        match (secret.metadata.destroyed, secret.data) {
            (true, _) => Err(SourceError::Destroyed),
            (false, None) if deleted => Err(SourceError::Disabled),
            (false, Some(fields)) if answer.status == 200 => {
                let text = fields.get(FIELD).and_then(|raw| json::text(raw));
                let key = text.and_then(|text| encoding::base64(text.as_bytes()));
                let key = key.ok_or(SourceError::Malformed)?;
                Ok(VersionedKey::new(id.clone(), found, &key))
            }
            _ => Err(SourceError::Malformed),
        }
    }

    fn write(
        &self,
        id: &KeyId,
        cas: u32,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<VersionedKey, SourceError> {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        let text = encoding::to_base64(&key);
        let options = Options { cas };
        let data = Fields { key: &text };
        // With this capacity the buffer never moves, which would leave a copy of the key behind.
        let mut body = Zeroizing::new(Vec::with_capacity(256));
        let written = serde_json::to_writer(&mut *body, &Write { options, data });
        written.map_err(|_| SourceError::Malformed)?;
        let answer = self.post("data", id, &body)?;
        if answer.status != 200 {
            return Err(refusal(answer.status, &answer.body));
        }
        let reply: Written =
            serde_json::from_slice(&answer.body).map_err(|_| SourceError::Malformed)?;
        let version = KeyVersion::new(reply.data.version).ok_or(SourceError::Malformed)?;
        if version.get() <= cas {
            return Err(SourceError::Malformed);
        }
        Ok(VersionedKey::new(id.clone(), version, &key))
    }

    fn post(&self, call: &str, id: &KeyId, body: &[u8]) -> Result<Answer, SourceError> {
        let token = (self.token)()?;
        let mut headers = self.headers(&token);
        headers.push(("content-type", "application/json"));
        self.http.post(&self.path(call, id), &headers, body)
    }

    fn path(&self, call: &str, id: &KeyId) -> String {
        format!("{}{id}", self.path.replacen("{}", call, 1))
    }

    fn headers<'a>(&'a self, token: &'a str) -> Vec<(&'static str, &'a str)> {
        let mut headers = vec![("x-vault-token", token), ("x-vault-request", "true")];
        headers.extend(
            self.namespace
                .as_deref()
                .map(|name| ("x-vault-namespace", name)),
        );
        headers
    }
}

impl KeySource for VaultKv {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        match self.read(id, None) {
            Err(SourceError::Destroyed | SourceError::Disabled) => Err(SourceError::NoCurrent),
            other => other,
        }
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        self.read(id, Some(version))
    }
}

impl fmt::Debug for VaultKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKv").finish_non_exhaustive()
    }
}

/// What an answer other than a secret means.
fn refusal(status: u16, body: &[u8]) -> SourceError {
    let says = |text: &[u8]| body.windows(text.len()).any(|part| part == text);
    match status {
        400 if says(b"check-and-set") => SourceError::Conflict,
        400..=403 => SourceError::Denied,
        404 => SourceError::NotFound,
        408 | 412 | 429 | 472 | 473 | 500..=599 => SourceError::Unavailable(None),
        _ => SourceError::Malformed,
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    data: Option<Secret<'a>>,
}

#[derive(Deserialize)]
struct Secret<'a> {
    #[serde(borrow)]
    data: Option<BTreeMap<String, &'a RawValue>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u32,
    destroyed: bool,
    deletion_time: String,
}

#[derive(Deserialize)]
struct Written {
    data: WrittenVersion,
}

#[derive(Deserialize)]
struct WrittenVersion {
    version: u32,
}

#[derive(Serialize)]
struct Write<'a> {
    options: Options,
    data: Fields<'a>,
}

#[derive(Serialize)]
struct Options {
    cas: u32,
}

#[derive(Serialize)]
struct Fields<'a> {
    key: &'a str,
}

const FIELD: &str = "key";
