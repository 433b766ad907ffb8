//! `sprag vault import`: what an older program wrote, under another key from now on.

use std::path::Path;

use sprag_vault::raw12::{self, Legacy, LegacyError, lumera, pyagent};
use sprag_vault::{DataKey, Sealing};
use zeroize::Zeroizing;

use super::args::{From, ImportArgs};
use super::keys::{self, Recipients};
use super::seal;
use super::source::Source;
use super::target::{Plan, put};
use crate::cmd::keys::places;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::{input, sys};

/// The largest that is read: all of it is in memory, sealed and opened.
const MOST: usize = 1 << 30;

/// What opens it.
enum OldKey {
    Data(DataKey),
    Password(Zeroizing<String>, [u8; 16]),
    Public([u8; 32]),
}

pub(super) fn run(args: &ImportArgs, output: &mut Output) -> Result<Exit, CliError> {
    check(args)?;
    let mut source = Source::open(args.input.file.as_deref())?;
    let plan = Plan::sealed(&args.out, &source)?;
    let context = keys::context(&args.context)?;
    let old = old_key(args)?;
    let metadata = args.metadata.as_deref().map(input::read).transpose()?;
    let metadata = metadata.map(|json| lumera::CryptoResult::from_json(&json));
    let metadata = metadata.transpose()?;
    let name = source.name.clone();
    let read = input::read_all(&mut source, MOST);
    let mut blob = read.map_err(|cause| CliError::file(&name, cause))?;
    if let Some(address) = &args.address {
        lumera::check_address(address, &blob)?;
    }
    if args.from == From::Pyagent && blob.starts_with(b"encrypted:") {
        let content = str::from_utf8(&blob).map_err(|_| LegacyError::Metadata)?;
        blob = Zeroizing::new(pyagent::blob_in_content(content.trim_end())?);
    }
    let recipients = Recipients::of(&args.to)?;
    places::note(&args.to.ring, &args.out)?;
    let (key, list) = (recipients.data_key(), recipients.list());
    let sealing = seal::formed(Sealing::new(&key, &list), &args.form)?.context(&context);
    let metadata = metadata.as_ref();
    let legacy = match &old {
        OldKey::Data(key) if args.from == From::Aegis && !args.single => {
            Legacy::AegisFile { key, file: &blob }
        }
        OldKey::Data(key) => Legacy::Blob {
            key,
            blob: &blob,
            metadata,
        },
        OldKey::Password(password, salt) => Legacy::Password {
            password,
            salt,
            blob: &blob,
            metadata,
        },
        OldKey::Public(identity_public) => Legacy::PyAgent {
            identity_public,
            purpose: args.purpose.legacy(),
            blob: &blob,
        },
    };
    let imported = raw12::import(&legacy, &sealing, &mut sys::rng())?;
    for warning in &imported.warnings {
        output.note(&format!("the old one stays weak: {warning}"));
    }
    let mut target = plan.begin(output)?;
    let done = put(&mut target, &imported.blob);
    let names = imported.warnings.iter();
    target.end(done, names.map(|warning| format!("{warning:?}")).collect())?;
    Ok(Exit::Ok)
}

/// Options of one program are nothing for another: what was meant to be verified is not passed over.
fn check(args: &ImportArgs) -> Result<(), CliError> {
    let for_lumera = args.old_salt.is_some()
        || args.old_key_id.is_some()
        || args.metadata.is_some()
        || args.address.is_some();
    if for_lumera && args.from != From::Lumera {
        return Err(CliError::Usage(
            "--old-salt, --old-key-id, --metadata and --address are for lumera".to_owned(),
        ));
    }
    if args.single && args.from != From::Aegis {
        return Err(CliError::Usage("--single is for aegis".to_owned()));
    }
    Ok(())
}

fn old_key(args: &ImportArgs) -> Result<OldKey, CliError> {
    let Some(path) = &args.old_key else {
        let mut salt = [0; 16];
        let digits = args.old_salt.as_deref().unwrap_or_default();
        hex::decode_to_slice(digits, &mut salt)
            .map_err(|_| CliError::Usage("--old-salt has 32 hexadecimal digits".to_owned()))?;
        return Ok(OldKey::Password(keys::old_password()?, salt));
    };
    let content = input::read(path)?;
    Ok(match args.from {
        From::Lumera => OldKey::Data(lumera_key(&content, args.old_key_id.as_deref(), path)?),
        From::Aegis => OldKey::Data(raw12::aegis::key_from_text(&content)?),
        From::Pyagent => OldKey::Public(public_key(&content)?),
    })
}

/// Base64, 64 hexadecimal digits, or one of a `keys.json`.
fn lumera_key(content: &[u8], id: Option<&str>, path: &Path) -> Result<DataKey, CliError> {
    if let Some(id) = id {
        let keys = lumera::keys_from_json(content)?;
        let found = keys.into_iter().find(|(name, _)| name == id);
        let missing = || CliError::NotFound(format!("such key in {}", path.display()));
        return found.map(|(_, key)| key).ok_or_else(missing);
    }
    if content.trim_ascii().len() == 64 {
        return Ok(lumera::plugin_key_from_text(content)?);
    }
    Ok(lumera::key_from_text(content)?)
}

fn public_key(content: &[u8]) -> Result<[u8; 32], LegacyError> {
    let mut key = [0; 32];
    if hex::decode_to_slice(content.trim_ascii(), &mut key).is_ok() {
        return Ok(key);
    }
    Ok(pyagent::KeyFile::from_json(content)?.identity_public)
}
