//! What stands on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sprag::AfterRollback;
use sprag::store::BackendKind;

use crate::cmd::keys::args::KeysArgs;
use crate::cmd::memory::args::{McpArgs, MemoryArgs};
use crate::cmd::vault::args::VaultArgs;

/// End-to-end encrypted chat over any transport: a folder, files, pipes
///
/// Try it without anything: `sprag demo`.
#[derive(Debug, Parser)]
#[command(name = "sprag", version, after_long_help = NOTES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const NOTES: &str = "\
Keys:
  A profile opens with the file of --key-file, else with the passphrase in SPRAG_PASSPHRASE,
  else with a passphrase that is asked for.

Transports:
  With --server, commands exchange with that folder whatever waits. Without, `sprag tasks --out
  DIR` writes what the network must do as files, and `sprag receive FILE` takes what came.

Output:
  Results go to standard output, everything else to standard error. With --json both are one
  JSON object per line, with a \"type\". What others wrote cannot steer your terminal.

Exit codes:
    0  done
    1  failed: an internal error, or a newer version is needed
    2  wrong call: arguments, no profile here, a profile of somebody else
    3  wrong passphrase or key
    4  another process has the profile open
    5  the profile, or a sealed file, is damaged; a job could not do all files
    6  refused, or the user must decide: a forged or repeated envelope, a changed identity;
       `diagnose` found something; a sealed file belongs to something else, or a file is in the way;
       a key is in use
    7  there is no such user, message, ring, key or job
    8  not now: a full disk, a full outbox, a file or folder that cannot be used
  130  interrupted; what was half written is removed
  141  nobody reads the output any more";

/// Options of all commands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Folder of the profile [default: ~/.sprag]
    #[arg(long, global = true, value_name = "DIR", env = "SPRAG_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// File that holds the key of the profile; `init` makes it
    #[arg(long, global = true, value_name = "FILE", env = "SPRAG_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Folder over which users exchange: on this machine, or synchronised
    #[arg(long, global = true, value_name = "DIR", env = "SPRAG_SERVER")]
    pub(crate) server: Option<PathBuf>,
    /// File outside of the profile that notices when the profile is set back; made if it is not there
    #[arg(long, global = true, value_name = "FILE", env = "SPRAG_ANCHOR")]
    pub(crate) anchor: Option<PathBuf>,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a profile: keys, a signed device list, prekeys
    Init(InitArgs),
    /// Send a message
    Send(SendArgs),
    /// Take what came in, and print messages
    Receive(ReceiveArgs),
    /// Exchange with the server whatever waits, and print nothing of it yet
    Sync,
    /// Show what the network must do, or say what it did
    Tasks(TasksArgs),
    /// Write a prekey bundle of ours, for one person who wants to write to us without a server
    Bundle(BundleArgs),
    /// Show the number that two people compare to know that nobody stands between them
    SafetyNumber(SafetyNumberArgs),
    /// Go on with somebody who is new, or whose identity changed: compare safety numbers first
    Accept(UserArgs),
    /// Show, add and remove your own devices
    Device(DeviceArgs),
    /// Show this profile, or what became of a message
    Status(StatusArgs),
    /// Show what happened that nobody asked for
    Events(EventsArgs),
    /// Show what was counted, and how full everything is
    Health,
    /// Replace all sessions with somebody, as after a suspected theft
    Reset(UserArgs),
    /// Show or switch quiet mode: contacts who ask in vain hear nothing, not even that we are there
    Quiet(QuietArgs),
    /// Look after the profile, once a day: prekeys, what is old, and the store
    Maintain(MaintainArgs),
    /// Make, look at, or restore a backup of account, trust and memory keys
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Write the last protocol events of this device: times, digests, numbers; no names, no keys
    Report(OutArgs),
    /// Lay the reports of two devices side by side: where and why did they diverge?
    Diagnose(DiagnoseArgs),
    /// Change what the profile opens with: another passphrase, or a key file
    Passphrase(PassphraseArgs),
    /// Look after the database that the profile is in
    Store(StoreArgs),
    /// Go on with a profile that was set back: `store_rolled_back`
    RolledBack(RolledBackArgs),
    /// Examine a profile that nobody has open, explain what is wrong, and repair what can be repaired
    Doctor(DoctorArgs),
    /// Seal files and pipes, and open them: no profile is needed
    Vault(VaultArgs),
    /// Keep keys in versions, and put what is sealed under new ones: no profile is needed
    Keys(KeysArgs),
    /// Remember things, and find, list and forget them; other processes may have the profile open meanwhile
    Memory(MemoryArgs),
    /// Give an AI agent a memory: serve the Model Context Protocol on standard input and output
    Mcp(McpArgs),
    /// Let two people talk in a temporary folder, and measure it
    Demo(DemoArgs),
    /// Print what lets a shell complete the arguments of this program
    Completions(CompletionsArgs),
    /// Print the manual page of this program
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Your name: 1 to 255 bytes
    pub(crate) user: String,
    /// This is another device of an account that exists: show a code that one of its devices reads with `sprag device
    /// add`
    #[arg(long)]
    pub(crate) link: bool,
    /// The database of a new profile
    #[arg(long, value_enum)]
    pub(crate) database: Option<Database>,
}

/// A database that profiles are kept in.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Database {
    Sled,
    Redb,
}

impl From<Database> for BackendKind {
    fn from(database: Database) -> Self {
        match database {
            Database::Sled => Self::Sled,
            Database::Redb => Self::Redb,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// From now on open with this key file, which is made if it is not there; without it a passphrase is asked for, or
    /// taken from SPRAG_NEW_PASSPHRASE
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Move the profile into another database. Whatever happens on the way, it is in the one or in the other
    Migrate {
        /// Into which
        #[arg(long, value_enum)]
        to: Database,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RolledBackArgs {
    /// As the same device, with new sessions. Only if no other copy of this profile is in use
    #[arg(long)]
    pub(crate) new_sessions: bool,
    /// As a new device; the old one goes off the account. If another copy may be in use, or in foreign hands
    #[arg(long)]
    pub(crate) new_device: bool,
    /// As a new device beside the old one, which another copy goes on as
    #[arg(long)]
    pub(crate) new_device_beside: bool,
}

impl RolledBackArgs {
    /// What the user decided.
    pub(crate) fn decision(&self) -> AfterRollback {
        match (self.new_device, self.new_device_beside) {
            (true, _) => AfterRollback::NewDevice,
            (_, true) => AfterRollback::NewDeviceBesideOld,
            _ => AfterRollback::NewSessions,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    pub(crate) what: DeviceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Show the devices of your account
    List,
    /// Show the code of this device once more, while it waits to be added
    Link,
    /// Add a device to *your* account: read the code that it shows
    Add {
        /// What the new device shows: `sprag-link:...`; `-` is standard input, where other users of this machine see
        /// nothing
        request: String,
        /// It may add and remove devices, too
        #[arg(long)]
        holder: bool,
    },
    /// Take a device off your account, for good
    Remove {
        /// Its number, as `list` shows it
        number: u32,
    },
    /// Say with which of two lists of your devices this device goes on; without HASH, show both
    Settle {
        /// The beginning of its hash, as shown
        hash: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Whom to
    pub(crate) user: String,
    /// The message; without it, or with `-`, standard input to its end. Other users of this machine may see arguments
    pub(crate) text: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// Envelopes: a file with one as it is, or with one per line in hexadecimal; `-` is standard input
    pub(crate) files: Vec<PathBuf>,
    /// Print nothing but the bytes of the messages
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Write the bytes of each task to a file in DIR, named ID.KIND
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Give the reply to a task
    #[arg(long, num_args = 2, value_names = ["ID", "FILE"])]
    pub(crate) supply: Vec<OsString>,
    /// A task was done
    #[arg(long, value_name = "ID")]
    pub(crate) done: Vec<u64>,
    /// A task failed: no-such-user, no-such-device, no-such-blob, not-yet, full, refused
    #[arg(long, num_args = 2, value_names = ["ID", "REASON"])]
    pub(crate) failed: Vec<String>,
    /// The server has something newer than the task expects: a list, or an object, which is in FILE
    #[arg(long, num_args = 2, value_names = ["ID", "FILE"])]
    pub(crate) conflict: Vec<OsString>,
    /// Offer a refused task again
    #[arg(long, value_name = "ID")]
    pub(crate) retry: Vec<u64>,
}

/// Why a task failed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Reason {
    NoSuchUser,
    NoSuchDevice,
    NoSuchBlob,
    NotYet,
    Full,
    Refused,
}

#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SafetyNumberArgs {
    /// With whom
    pub(crate) user: String,
    /// Compare with what the other side shows: 60 digits, or the bytes of the QR code in hexadecimal
    #[arg(long, value_name = "CODE")]
    pub(crate) scan: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// Whom
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct QuietArgs {
    /// Switch it
    pub(crate) switch: Option<Switch>,
}

/// On or off.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// What `send` printed
    pub(crate) message: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only those after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) since: u64,
}

#[derive(Debug, Args)]
pub(crate) struct MaintainArgs {
    /// The clock of this machine jumped, and is right: the time that was shown, in milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(crate) confirm_time: Option<u64>,
    /// Renew the store after so many commits [default: 1000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) renew_after: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write a backup, and print the recovery key that opens it: once, and nowhere else
    Create(BackupCreateArgs),
    /// Open a backup as for a restore, and say what is in it
    Verify(BackupFileArgs),
    /// Make a new device of the account in a backup, in an empty --home
    Restore(BackupRestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BackupCreateArgs {
    /// Where to write it; a file that is there is left alone
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// A passphrase opens it, too: SPRAG_BACKUP_PASSPHRASE, or asked for
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// No recovery key: the passphrase alone opens it
    #[arg(long, requires = "passphrase")]
    pub(crate) no_recovery_key: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupFileArgs {
    /// The backup
    pub(crate) file: PathBuf,
    /// It is opened with a passphrase (SPRAG_BACKUP_PASSPHRASE, or asked for), not with the recovery key
    /// (SPRAG_RECOVERY_KEY, or asked for)
    #[arg(long)]
    pub(crate) passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupRestoreArgs {
    #[command(flatten)]
    pub(crate) backup: BackupFileArgs,
    /// The device that made the backup is lost: take it off the account
    #[arg(long)]
    pub(crate) replace_lost: bool,
    /// This device is lost, too: take it off the account
    #[arg(long, value_name = "NUMBER", conflicts_with = "replace_lost")]
    pub(crate) replace: Vec<u32>,
    /// All devices are lost: take them off the account
    #[arg(long, conflicts_with_all = ["replace_lost", "replace"])]
    pub(crate) replace_all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OutArgs {
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DiagnoseArgs {
    /// The report of one device, which `report` wrote there
    pub(crate) a: PathBuf,
    /// The report of the other
    pub(crate) b: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Say what would be repaired; with --yes, copy the profile aside and do it
    #[arg(long)]
    pub(crate) repair: bool,
    /// Do it
    #[arg(long, requires = "repair")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Work in DIR, which must be new or empty, and leave everything there
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
