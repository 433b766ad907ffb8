//! `sprag backup create`, `verify`, `restore`.

use std::fs::OpenOptions;
use std::io::Write;

use sprag::{BackupSummary, Client, Key, RecoveryKey, Restore};

use crate::args::{BackupCreateArgs, BackupFileArgs, BackupRestoreArgs, Global};
use crate::error::{CliError, Exit};
use crate::input;
use crate::key;
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

use super::status;

pub(super) fn create(
    profile: &Profile,
    args: &BackupCreateArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let mut keys = Vec::new();
    if args.passphrase {
        keys.push(key::new_backup_passphrase()?);
    }
    let recovery = if args.no_recovery_key {
        None
    } else {
        Some(profile.client.new_recovery_key()?)
    };
    keys.extend(recovery.as_ref().map(RecoveryKey::to_key));
    let backup = profile.client.create_backup(&keys)?;
    let failed = |cause| CliError::file(&args.out, cause);
    // An older backup is not overwritten: perhaps it is the only one whose key is known.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&args.out)
        .map_err(failed)?;
    file.write_all(&backup)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    output.line(&Line::BackupMade {
        file: args.out.display().to_string(),
        bytes: backup.len(),
        recovery_key: recovery.map(|recovery| recovery.to_text()),
    })?;
    Ok(Exit::Ok)
}

pub(super) fn verify(args: &BackupFileArgs, output: &mut Output) -> Result<Exit, CliError> {
    let (backup, opener) = opened(args)?;
    let summary = Client::verify_backup(&backup, &opener)?;
    output.line(&line(summary))?;
    Ok(Exit::Ok)
}

/// Makes the profile. What follows is the network's.
pub(super) fn restore(
    global: &Global,
    args: &BackupRestoreArgs,
    output: &mut Output,
) -> Result<Profile, CliError> {
    let (backup, opener) = opened(&args.backup)?;
    let mut how = Restore::new();
    if args.replace_lost {
        how = how.replacing_source();
    } else if args.replace_all {
        how = how.replacing_all();
    } else if !args.replace.is_empty() {
        how = how.replacing(&args.replace)?;
    }
    let summary = Client::verify_backup(&backup, &opener)?;
    if !summary.holder {
        return Err(CliError::Refused(
            "the device that made this backup could not change the account: link a new device instead"
                .to_owned(),
        ));
    }
    let profile = Profile::restore(global, &backup, &opener, &how)?;
    output.line(&line(summary))?;
    Ok(profile)
}

/// With a server: the new device puts itself on the account at once.
pub(super) fn restored(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    let ran = profile.run_tasks(output)?;
    output.line(&status::profile_line(profile)?)?;
    output.note(
        "this is a new device: it has no sessions, opens fresh ones, and hears nothing of what was sent before",
    );
    profile.tell_waiting(output)?;
    if ran.questions > 0 {
        return Err(CliError::Refused(
            "the server shows other lists than this device knows: see `sprag events`".to_owned(),
        ));
    }
    Ok(Exit::Ok)
}

fn opened(args: &BackupFileArgs) -> Result<(Vec<u8>, Key), CliError> {
    let backup = input::read(&args.file)?;
    let opener = if args.passphrase {
        key::backup_passphrase()?
    } else {
        key::recovery_key()?
    };
    Ok((backup.to_vec(), opener))
}

fn line(summary: BackupSummary) -> Line {
    Line::Backup {
        user: summary.user,
        device: summary.device,
        made_at: summary.made_at,
        contacts: summary.contacts,
        generations: summary.generations,
        holder: summary.holder,
        epoch: summary.epoch,
        devices: summary.devices,
    }
}
