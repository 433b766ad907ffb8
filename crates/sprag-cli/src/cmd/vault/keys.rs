//! Keys, recipients and contexts that the command line names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sprag::KeyError;
use sprag_vault::{
    Context, DataKey, Header, Recipient, RecipientKey, RecipientPrivateKey, SlotKind, Unlock,
};
use zeroize::Zeroizing;

use super::VaultError;
use super::args::{ContextArgs, To, With};
use super::text::{self, Kind};
use crate::cmd::keys::ring;
use crate::error::CliError;
use crate::key;
use crate::sys;

/// The environment variable of the passphrase of a blob. Not that of the profile, which nobody means to share.
const PASSPHRASE: &str = "SPRAG_VAULT_PASSPHRASE";
/// That of the passphrase which takes its place, or comes beside it.
const NEW_PASSPHRASE: &str = "SPRAG_VAULT_NEW_PASSPHRASE";
/// That of the password of something older.
const OLD_PASSPHRASE: &str = "SPRAG_VAULT_OLD_PASSPHRASE";

/// Bytes that a key file may have: far more than it needs.
const MAX_KEY_FILE: u64 = 4096;

/// What a key file holds.
pub(super) enum VaultKey {
    Private(RecipientPrivateKey),
    Symmetric(DataKey),
}

impl VaultKey {
    pub(super) fn public(&self) -> Option<RecipientKey> {
        match self {
            Self::Private(key) => Some(key.public_key()),
            Self::Symmetric(_) => None,
        }
    }

    pub(super) fn text(&self) -> Zeroizing<String> {
        match self {
            Self::Private(key) => text::encode(Kind::Private, &key.to_bytes()),
            Self::Symmetric(key) => text::encode(Kind::Symmetric, key.as_bytes()),
        }
    }

    fn parse(content: &str) -> Option<Self> {
        let lines = content.lines().map(str::trim);
        let mut keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return None;
        };
        if let Some(bytes) = text::decode(Kind::Private, key) {
            return RecipientPrivateKey::from_bytes(&bytes)
                .ok()
                .map(Self::Private);
        }
        let bytes = text::decode(Kind::Symmetric, key)?;
        Some(Self::Symmetric(DataKey::from_bytes(&bytes)))
    }
}

/// Reads a key file, unless others may read it.
pub(super) fn read(path: &Path) -> Result<VaultKey, CliError> {
    let file = File::open(path).map_err(|cause| CliError::file(path, cause))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file
            .metadata()
            .map_err(|cause| CliError::file(path, cause))?;
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Permissions.into());
        }
    }
    let mut content = Zeroizing::new(String::with_capacity(4096));
    let read = file.take(MAX_KEY_FILE).read_to_string(&mut content);
    read.ok()
        .and_then(|_| VaultKey::parse(&content))
        .ok_or(KeyError::Malformed.into())
}

/// Whom to seal to.
pub(super) struct Recipients {
    named: Vec<(String, RecipientKey)>,
    own: Vec<RecipientKey>,
    /// With the id that its slot has.
    symmetric: Option<(String, DataKey)>,
    passphrase: Option<Zeroizing<String>>,
}

impl Recipients {
    /// Those of `seal` and `import`.
    pub(super) fn of(to: &To) -> Result<Self, CliError> {
        let Some(ring) = &to.ring.ring else {
            return Self::read(&to.recipient, &to.key, to.passphrase.then_some(PASSPHRASE));
        };
        if !to.recipient.is_empty() || to.passphrase || to.key.len() > 1 {
            return Err(VaultError::SymmetricAmongOthers.into());
        }
        let [name] = to.key.as_slice() else {
            return Err(CliError::Usage(
                "give --key with the name of a key in the ring".to_owned(),
            ));
        };
        let key = ring::current(ring, &to.ring, name)?;
        Ok(Self {
            named: Vec::new(),
            own: Vec::new(),
            symmetric: Some((ring::slot_id(&key), DataKey::from_bytes(key.as_bytes()))),
            passphrase: None,
        })
    }

    /// Those that take the place of others, or come beside them.
    pub(super) fn new(
        named: &[String],
        keys: &[PathBuf],
        passphrase: bool,
    ) -> Result<Self, CliError> {
        Self::read(named, keys, passphrase.then_some(NEW_PASSPHRASE))
    }

    fn read(
        named: &[String],
        keys: &[PathBuf],
        passphrase: Option<&str>,
    ) -> Result<Self, CliError> {
        let mut recipients = Self {
            named: named
                .iter()
                .map(|text| named_key(text))
                .collect::<Result<_, _>>()?,
            own: Vec::new(),
            symmetric: None,
            passphrase: None,
        };
        for path in keys {
            match read(path)? {
                VaultKey::Private(key) => recipients.own.push(key.public_key()),
                VaultKey::Symmetric(_) if recipients.symmetric.is_some() => {
                    return Err(VaultError::SymmetricAmongOthers.into());
                }
                VaultKey::Symmetric(key) => recipients.symmetric = Some((String::new(), key)),
            }
        }
        let others = recipients.named.len() + recipients.own.len();
        if recipients.symmetric.is_some() && (others > 0 || passphrase.is_some()) {
            return Err(VaultError::SymmetricAmongOthers.into());
        }
        if let Some(variable) = passphrase {
            recipients.passphrase = Some(key::new_passphrase(variable, "New passphrase: ")?);
        } else if recipients.symmetric.is_none() && others == 0 {
            return Err(sprag_vault::SealError::NoRecipient.into());
        }
        Ok(recipients)
    }

    /// Whether there is a symmetric key, which is not to be wrapped for anybody.
    pub(super) fn is_symmetric(&self) -> bool {
        self.symmetric.is_some()
    }

    /// The data key: a fresh one, or the symmetric one.
    pub(super) fn data_key(&self) -> DataKey {
        match &self.symmetric {
            Some((_, key)) => key.clone(),
            None => DataKey::generate(&mut sys::rng()),
        }
    }

    pub(super) fn list(&self) -> Vec<Recipient<'_>> {
        let named = self.named.iter();
        let named = named.map(|(id, key)| Recipient::key(id.as_str(), *key));
        let own = self.own.iter().map(|key| Recipient::key("", *key));
        let symmetric = self.symmetric.iter();
        let symmetric = symmetric.map(|(id, _)| Recipient::direct(id.as_str()));
        let passphrase = self.passphrase.iter();
        let passphrase = passphrase.map(|words| Recipient::passphrase("", words));
        named
            .chain(own)
            .chain(symmetric)
            .chain(passphrase)
            .collect()
    }
}

/// `[ID=]PUBLIC`
fn named_key(text: &str) -> Result<(String, RecipientKey), CliError> {
    let (id, key) = text.rsplit_once('=').unwrap_or(("", text));
    let bytes = text::decode(Kind::Public, key);
    let bytes = bytes.ok_or_else(|| {
        // Not what was given: it may be the other half.
        CliError::Usage("a recipient is no public key, or has a slip in it".to_owned())
    })?;
    Ok((id.to_owned(), RecipientKey::from_bytes(*bytes)))
}

/// What opens a blob with this header: its slots are tried with all keys, whatever ids stand there.
pub(super) fn unlock(with: &With, header: &Header) -> Result<Unlock<'static>, CliError> {
    if let Some(ring) = &with.ring.ring {
        if with.passphrase {
            return Err(CliError::Usage(
                "--ring and --passphrase are two ways to open: give one".to_owned(),
            ));
        }
        return ring::unlock(ring, with, header);
    }
    let keys: Vec<_> = with
        .key
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    let is_passphrase = |kind| matches!(kind, SlotKind::Passphrase(_));
    let has_passphrase = header.slots().iter().any(|slot| is_passphrase(slot.kind()));
    let mut unlock = Unlock::new();
    if with.passphrase || (keys.is_empty() && has_passphrase) {
        unlock = unlock.passphrase(&key::old_passphrase(PASSPHRASE, "Passphrase: ")?);
    } else if keys.is_empty() {
        return Err(CliError::Usage("give --key".to_owned()));
    }
    let mut seen = BTreeSet::new();
    for slot in header.slots() {
        let is_direct = match slot.kind() {
            SlotKind::Direct => true,
            SlotKind::Recipient => false,
            _ => continue,
        };
        if !seen.insert((is_direct, slot.id())) {
            continue;
        }
        for key in &keys {
            unlock = match key {
                VaultKey::Private(key) if !is_direct => unlock.private_key(slot.id(), key.clone()),
                VaultKey::Symmetric(key) if is_direct => unlock.direct(slot.id(), key.clone()),
                _ => unlock,
            };
        }
    }
    Ok(unlock)
}

/// The password of something older.
pub(super) fn old_password() -> Result<Zeroizing<String>, CliError> {
    key::old_passphrase(OLD_PASSPHRASE, "Old password: ")
}

/// The context of these pairs.
pub(super) fn context(args: &ContextArgs) -> Result<Context, CliError> {
    let pairs = args.context.iter().map(|pair| {
        let wrong = || CliError::Usage("a context is NAME=VALUE".to_owned());
        pair.split_once('=').ok_or_else(wrong)
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    Context::from_pairs(pairs).map_err(|error| CliError::Usage(error.to_string()))
}
