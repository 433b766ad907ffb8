//! PyAgent, the early version: data keys derived from a *public* key. Whoever has a user's key bundle can read all that he stored.
//! Reading only.

use serde_json::Value;
use sprag_crypto::{PrivateKey, hkdf};
use zeroize::{Zeroize, Zeroizing};

use super::LegacyError;
use crate::DataKey;

const INFO: &[u8] = b"PyAgent-UserData";
const PREFIX: &str = "encrypted:";

/// What a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// A memory.
    Memory,
    /// A chat history.
    Chat,
}

/// The key under which a user's data stand, out of his public identity key (X25519, 32 bytes).
#[must_use]
pub fn data_key(identity_public: &[u8; 32], purpose: Purpose) -> DataKey {
    let salt: &[u8] = match purpose {
        Purpose::Memory => b"memory",
        Purpose::Chat => b"chat",
    };
    DataKey::from_bytes(&hkdf::<32>(salt, identity_public, &[INFO]))
}

/// The blob in the field `content` of a stored memory: `encrypted:` and hexadecimal digits.
///
/// # Errors
/// [`LegacyError::NotEncrypted`] without that beginning; [`LegacyError::Metadata`] if what follows are no digits.
pub fn blob_in_content(content: &str) -> Result<Vec<u8>, LegacyError> {
    let digits = content
        .strip_prefix(PREFIX)
        .ok_or(LegacyError::NotEncrypted)?;
    hex::decode(digits).map_err(|_| LegacyError::Metadata)
}

/// The public half in `<user>_keys.json`, with the id of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyFile {
    /// Whose it is.
    pub user_id: String,
    /// X25519, 32 bytes.
    pub identity_public: [u8; 32],
}

impl KeyFile {
    /// Reads the file. The private half, which stands there unencrypted, is compared with the public one and forgotten: no data
    /// key needs it.
    ///
    /// # Errors
    /// [`LegacyError::Key`]
    pub fn from_json(json: &[u8]) -> Result<Self, LegacyError> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(json) else {
            return Err(LegacyError::Key);
        };
        let mut private = Zeroizing::new([0; 32]);
        if let Some(Value::String(digits)) = fields.get_mut("identity_key") {
            let decoded = hex::decode_to_slice(&*digits, private.as_mut_slice());
            digits.zeroize();
            decoded.map_err(|_| LegacyError::Key)?;
        }
        let text = |name| fields.get(name).and_then(Value::as_str);
        let user_id = text("user_id").ok_or(LegacyError::Key)?.to_owned();
        let mut identity_public = [0; 32];
        let digits = text("identity_public").ok_or(LegacyError::Key)?;
        hex::decode_to_slice(digits, &mut identity_public).map_err(|_| LegacyError::Key)?;
        let belongs = PrivateKey::from_bytes(&private).public_key().u() == identity_public;
        if fields.contains_key("identity_key") && !belongs {
            return Err(LegacyError::Key);
        }
        Ok(Self {
            user_id,
            identity_public,
        })
    }
}
