//! Rings that the command line names.

use std::path::Path;

use sprag_keys::{
    Key, KeyId, KeySource, KeyVersion, RingFile, RingFileError, SourceError, VersionedKey,
};
use sprag_vault::{DataKey, Header, SlotKind, Unlock};

use super::KeysError;
use super::args::{OpensArgs, RingArgs, VaultRing};
use crate::cmd::vault::args::With;
use crate::error::CliError;
use crate::{key, sys};

/// The environment variable of the passphrase of a ring. Not that of the profile, which nobody means to share.
const PASSPHRASE: &str = "SPRAG_RING_PASSPHRASE";

/// Opens a ring that is there. None is made.
pub(super) fn open(args: &RingArgs) -> Result<RingFile, CliError> {
    open_at(&args.ring, &args.opens)
}

fn open_at(path: &Path, opens: &OpensArgs) -> Result<RingFile, CliError> {
    let failed = |error| KeysError::ring(path, error).into();
    // Nobody is asked for the passphrase of nothing.
    if let Err(cause) = path.metadata()
        && cause.kind() == std::io::ErrorKind::NotFound
    {
        return Err(failed(RingFileError::Key(sprag::KeyError::NotFound)));
    }
    let key = match &opens.ring_key_file {
        Some(file) => Key::file(file),
        None => Key::passphrase(&key::old_passphrase(
            PASSPHRASE,
            "Passphrase of the ring: ",
        )?),
    };
    RingFile::open(path, &key).map_err(|error| match (error, &opens.ring_key_file) {
        // The ring is there: this is the file of its key.
        (RingFileError::Key(sprag::KeyError::NotFound), Some(file)) if !file.exists() => {
            CliError::file(file, std::io::ErrorKind::NotFound.into())
        }
        (error, _) => failed(error),
    })
}

/// Makes a ring, and its key file if that is not there.
pub(super) fn create(args: &RingArgs) -> Result<RingFile, CliError> {
    let failed = |error| KeysError::ring(&args.ring, error).into();
    if args.ring.symlink_metadata().is_ok() {
        return Err(failed(RingFileError::Key(sprag::KeyError::Exists)));
    }
    let key = match &args.opens.ring_key_file {
        Some(file) if file.exists() => Key::file(file),
        Some(file) => key::create(file)?,
        None => {
            let prompt = "Passphrase for the ring: ";
            Key::passphrase(&key::new_passphrase(PASSPHRASE, prompt)?)
        }
    };
    RingFile::create(&args.ring, &key, &mut sys::rng()).map_err(failed)
}

/// A version by its number.
pub(super) fn version(number: u32) -> Result<KeyVersion, CliError> {
    KeyVersion::new(number).ok_or_else(|| CliError::Usage("versions begin with 1".to_owned()))
}

/// The key to seal with. `name` comes from where a file could stand.
pub(crate) fn current(
    ring: &Path,
    args: &VaultRing,
    name: &Path,
) -> Result<VersionedKey, CliError> {
    let name = named(name)?;
    let ring = open_at(ring, &args.opens)?;
    let key = ring.current(&name);
    key.map_err(|error| KeysError::source(&name, error).into())
}

fn named(name: &Path) -> Result<KeyId, CliError> {
    let text = name.to_str().unwrap_or_default();
    KeyId::new(text).map_err(|error| KeysError::source(name.display(), error).into())
}

/// The id of a direct slot: `<name>/<version>`. No name has a stroke.
pub(crate) fn slot_id(key: &VersionedKey) -> String {
    format!("{}/{}", key.id(), key.version())
}

/// What the id of a slot names.
pub(super) fn of_slot(id: &[u8]) -> Option<(KeyId, KeyVersion)> {
    let (name, version) = str::from_utf8(id).ok()?.split_once('/')?;
    // One text for each number.
    let number: u32 = version.parse().ok()?;
    let version = (number.to_string() == version).then(|| KeyVersion::new(number))??;
    Some((KeyId::new(name).ok()?, version))
}

/// What opens a blob with this header: the keys that its slots name, or those of one name.
pub(crate) fn unlock(
    ring: &Path,
    with: &With,
    header: &Header,
) -> Result<Unlock<'static>, CliError> {
    let wanted = match with.key.as_slice() {
        [] => None,
        [name] => Some(named(name)?),
        _ => return Err(CliError::Usage("give one --key of the ring".to_owned())),
    };
    let ring = open_at(ring, &with.ring.opens)?;
    if let Some(name) = &wanted {
        let known = ring.ring().versions(name);
        known.map_err(|_| KeysError::source(name, SourceError::NotFound))?;
    }
    let (mut unlock, mut missing, mut found) = (Unlock::new(), None, false);
    let direct = header.slots().iter();
    for slot in direct.filter(|slot| slot.kind() == SlotKind::Direct) {
        let Some((name, version)) = of_slot(slot.id()) else {
            continue;
        };
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        match ring.by_version(&name, version) {
            Ok(key) => {
                found = true;
                unlock = unlock.direct(slot.id(), DataKey::from_bytes(key.as_bytes()));
            }
            Err(error) => {
                missing.get_or_insert(KeysError::source(
                    format!("{name}, version {version}"),
                    error,
                ));
            }
        }
    }
    match missing {
        Some(error) if !found => Err(error.into()),
        _ => Ok(unlock),
    }
}
