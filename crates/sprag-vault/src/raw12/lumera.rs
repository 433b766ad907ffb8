//! Lumera: a blob, metadata beside it, an address that is its hash.

use std::fmt::{self, Write};

use rand_core::CryptoRng;
use serde_json::{Map, Value};
use sprag_crypto::{NONCE, hkdf, sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{LegacyError, OVERHEAD, key_from_base64, key_from_hex};
use crate::DataKey;

const ALGORITHM: &str = "AES-256-GCM";
const SCHEME: &str = "cascade://";
const PASSWORD_INFO: &[u8] = b"lumera-agent-memory";

/// What stands beside a blob, in any of its forms. Whoever has it can confirm a guess of the payload by its hash; so it
/// belongs where the payload could stand.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CryptoResult {
    /// Which key it is under.
    pub key_id: Option<String>,
    /// SHA-256 of the payload.
    pub plaintext_sha256: Option<[u8; 32]>,
    /// SHA-256 of the blob, its nonce included; of the tool's form also without.
    pub ciphertext_sha256: Option<[u8; 32]>,
    /// Bytes of the blob, its nonce included.
    pub bytes: Option<u64>,
    /// The nonce.
    pub nonce: Option<[u8; NONCE]>,
}

impl fmt::Debug for CryptoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptoResult")
            .field("key_id", &self.key_id)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// In which form metadata are written. All are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Form {
    /// One line: `algorithm`, `key_id`, `plaintext_sha256`, `ciphertext_sha256`, `bytes`.
    #[default]
    Line,
    /// As the tool writes it to `<name>.meta`, indented: with `nonce_hex` and `ciphertext_bytes` in place of `bytes`.
    Tool,
    /// As the plugin keeps it: within `crypto`, with `enc` for the algorithm.
    Plugin,
}

impl CryptoResult {
    /// Of a blob and its payload.
    fn of(blob: &[u8], payload: &[u8], key_id: &str) -> Self {
        Self {
            key_id: Some(key_id.to_owned()),
            plaintext_sha256: Some(sha256(&[payload])),
            ciphertext_sha256: Some(sha256(&[blob])),
            bytes: u64::try_from(blob.len()).ok(),
            nonce: blob.first_chunk().copied(),
        }
    }

    /// Reads the metadata of the library (two forms), the tool or the plugin. Fields that are not there are not checked later;
    /// fields that are not known are passed over.
    ///
    /// # Errors
    /// [`LegacyError::Metadata`], [`LegacyError::Algorithm`]
    pub fn from_json(json: &[u8]) -> Result<Self, LegacyError> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(json) else {
            return Err(LegacyError::Metadata);
        };
        let fields = match fields.get("crypto") {
            Some(Value::Object(inner)) => inner,
            Some(_) => return Err(LegacyError::Metadata),
            None => &fields,
        };
        let algorithm = text(fields, "algorithm")?.or(text(fields, "enc")?);
        match algorithm {
            Some(ALGORITHM) => {}
            Some(_) => return Err(LegacyError::Algorithm),
            None => return Err(LegacyError::Metadata),
        }
        if number(fields, "nonce_bytes")?.is_some_and(|bytes| bytes != 12) {
            return Err(LegacyError::Algorithm);
        }
        let without_nonce = number(fields, "ciphertext_bytes")?;
        let without_nonce = without_nonce.map(|bytes| bytes.saturating_add(12));
        Ok(Self {
            key_id: text(fields, "key_id")?.map(str::to_owned),
            plaintext_sha256: digits(fields, "plaintext_sha256")?,
            ciphertext_sha256: digits(fields, "ciphertext_sha256")?,
            bytes: number(fields, "bytes")?
                .or(number(fields, "total_bytes")?)
                .or(without_nonce),
            nonce: digits(fields, "nonce_hex")?,
        })
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self, form: Form) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let digits = |bytes: &[u8]| format!("\"{}\"", hex::encode(bytes));
        let mut fields = Vec::new();
        let mut put = |name: &'static str, value: Option<String>| {
            fields.extend(value.map(|value| (name, value)));
        };
        let algorithm = if form == Form::Plugin {
            "enc"
        } else {
            "algorithm"
        };
        put(algorithm, Some(text(ALGORITHM)));
        put("key_id", self.key_id.as_deref().map(text));
        put(
            "plaintext_sha256",
            self.plaintext_sha256.map(|hash| digits(&hash)),
        );
        put(
            "ciphertext_sha256",
            self.ciphertext_sha256.map(|hash| digits(&hash)),
        );
        if form == Form::Tool {
            put("nonce_hex", self.nonce.map(|nonce| digits(&nonce)));
            let bytes = self.bytes.map(|bytes| bytes.saturating_sub(12));
            put("ciphertext_bytes", bytes.map(|bytes| bytes.to_string()));
        } else {
            put("bytes", self.bytes.map(|bytes| bytes.to_string()));
        }
        let (open, between, close) = match form {
            Form::Line => ("{", ", ", "}"),
            Form::Tool => ("{\n  ", ",\n  ", "\n}"),
            Form::Plugin => ("{\"crypto\": {", ", ", "}}"),
        };
        let mut json = open.to_owned();
        for (at, (name, value)) in fields.iter().enumerate() {
            let between = if at == 0 { "" } else { between };
            // Writing into a string does not fail.
            let _ = write!(json, "{between}\"{name}\": {value}");
        }
        json + close
    }

    /// Whether the blob is the one that this is about: before anything is decrypted.
    fn check(&self, blob: &[u8]) -> Result<(), LegacyError> {
        if self
            .bytes
            .is_some_and(|bytes| u64::try_from(blob.len()).ok() != Some(bytes))
        {
            return Err(LegacyError::Length);
        }
        let (nonce, rest) = blob.split_first_chunk().ok_or(LegacyError::Short)?;
        let same_nonce = self.nonce.is_none_or(|named| named == *nonce);
        let same_hash = self.ciphertext_sha256.is_none_or(|named| {
            named == sha256(&[blob]) || (self.nonce.is_some() && named == sha256(&[rest]))
        });
        if same_nonce && same_hash {
            Ok(())
        } else {
            Err(LegacyError::CiphertextHash)
        }
    }
}

/// Seals a payload, with what stands beside it. Draws 12 bytes.
#[must_use]
pub fn seal(
    key: &DataKey,
    key_id: &str,
    payload: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> (Vec<u8>, CryptoResult) {
    let blob = super::seal(key, payload, rng);
    let metadata = CryptoResult::of(&blob, payload, key_id);
    (blob, metadata)
}

/// Opens a blob. What the metadata name is verified: length, nonce and hash of the blob before it is decrypted, the hash of the
/// payload after.
///
/// # Errors
/// [`LegacyError`]
pub fn open(
    key: &DataKey,
    blob: &[u8],
    metadata: Option<&CryptoResult>,
) -> Result<Zeroizing<Vec<u8>>, LegacyError> {
    if blob.len() < OVERHEAD {
        return Err(LegacyError::Short);
    }
    if let Some(metadata) = metadata {
        metadata.check(blob)?;
    }
    let payload = super::open(key, blob)?;
    match metadata.and_then(|metadata| metadata.plaintext_sha256) {
        Some(named) if named != sha256(&[&payload]) => Err(LegacyError::PlaintextHash),
        _ => Ok(payload),
    }
}

/// The address of a blob: `cascade://` and its hash in 64 hexadecimal digits.
#[must_use]
pub fn address(blob: &[u8]) -> String {
    format!("{SCHEME}{}", hex::encode(sha256(&[blob])))
}

/// Checks that a blob is the one at this address.
///
/// # Errors
/// [`LegacyError::Metadata`] if it is no address, [`LegacyError::CiphertextHash`]
pub fn check_address(address: &str, blob: &[u8]) -> Result<(), LegacyError> {
    if hash_in(address)? == sha256(&[blob]) {
        Ok(())
    } else {
        Err(LegacyError::CiphertextHash)
    }
}

/// Where a blob lies in a folder that stands in for the network: `<first two digits>/<all digits>`.
///
/// # Errors
/// [`LegacyError::Metadata`] if it is no address.
pub fn path_in_folder(address: &str) -> Result<String, LegacyError> {
    let digits = hex::encode(hash_in(address)?);
    let first = digits.get(..2).unwrap_or_default();
    Ok(format!("{first}/{digits}"))
}

fn hash_in(address: &str) -> Result<[u8; 32], LegacyError> {
    let digits = address.strip_prefix(SCHEME).ok_or(LegacyError::Metadata)?;
    let mut hash = [0; 32];
    let lower = !digits.bytes().any(|digit| digit.is_ascii_uppercase());
    match hex::decode_to_slice(digits, &mut hash) {
        Ok(()) if lower => Ok(hash),
        _ => Err(LegacyError::Metadata),
    }
}

/// A key as the library and the tool keep it: base64 of 32 bytes (`LUMERA_KEY_<ID>`, `~/.lumera/keys/<id>.key`).
///
/// # Errors
/// [`LegacyError::Key`]
pub fn key_from_text(text: &[u8]) -> Result<DataKey, LegacyError> {
    key_from_base64(text)
}

/// A key as the plugin keeps it: 64 hexadecimal digits (`LUMERA_MEMORY_KEY`).
///
/// # Errors
/// [`LegacyError::Key`]
pub fn plugin_key_from_text(text: &[u8]) -> Result<DataKey, LegacyError> {
    key_from_hex(text)
}

/// The environment variable in which the library keeps the key of this id.
#[must_use]
pub fn environment_name(key_id: &str) -> String {
    format!("LUMERA_KEY_{}", key_id.to_uppercase())
}

/// The keys of a `keys.json`: id and key, all or none. A file that does not read is an error and never an empty one; nothing
/// here writes one.
///
/// # Errors
/// [`LegacyError::Key`]
pub fn keys_from_json(json: &[u8]) -> Result<Vec<(String, DataKey)>, LegacyError> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(json) else {
        return Err(LegacyError::Key);
    };
    let mut keys = Vec::with_capacity(fields.len());
    let mut failed = false;
    for (id, value) in fields {
        let Value::String(mut text) = value else {
            failed = true;
            continue;
        };
        match key_from_base64(text.as_bytes()) {
            Ok(key) => keys.push((id, key)),
            Err(_) => failed = true,
        }
        text.zeroize();
    }
    if failed {
        Err(LegacyError::Key)
    } else {
        Ok(keys)
    }
}

/// The key that the library makes of a password and 16 bytes that must have been kept elsewhere. It is not stretched: whoever has
/// a blob tries millions of passwords a second. Reading only.
#[must_use]
pub fn key_from_password(password: &str, salt: &[u8; 16]) -> DataKey {
    DataKey::from_bytes(&hkdf::<32>(salt, password.as_bytes(), &[PASSWORD_INFO]))
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, LegacyError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(LegacyError::Metadata),
    }
}

fn number(fields: &Map<String, Value>, name: &str) -> Result<Option<u64>, LegacyError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(LegacyError::Metadata),
    }
}

fn digits<const N: usize>(
    fields: &Map<String, Value>,
    name: &str,
) -> Result<Option<[u8; N]>, LegacyError> {
    let Some(digits) = text(fields, name)? else {
        return Ok(None);
    };
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| LegacyError::Metadata)?;
    Ok(Some(bytes))
}
