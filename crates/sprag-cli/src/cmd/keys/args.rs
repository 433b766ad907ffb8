//! What stands on the command line after `sprag keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sprag_keys::KeyId;

const NOTES: &str = "\
Rings:
  A ring is a file with keys, each in versions: the current one seals, retired ones still open. It
  opens with the file of --ring-key-file, else with the passphrase in SPRAG_RING_PASSPHRASE, else
  with a passphrase that is asked for. Only `init` makes a ring, only `create` and `import` make a key.

Rotation:
  sprag keys rotate memories --ring R          a new version; the old one still opens
  sprag keys rotate memories --ring R --run    the same, and a job in every folder that is known
  sprag keys job start DIR --key memories --ring R
                                               puts what is in DIR under the new version; may be
                                               killed at any point, `job resume` goes on
  sprag keys destroy memories 1 --ring R       the old version is gone for good";

/// `sprag keys`.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a ring without keys. A file that is there is left alone
    Init(RingArgs),
    /// Show the keys of a ring with their versions, and no secret
    List(ListArgs),
    /// Make a key of a new name
    Create(NameArgs),
    /// Take in a key that an older program keeps, as the first version of a new name
    Import(ImportArgs),
    /// Make a new version of a key, which seals from now on; the one before still opens
    Rotate(RotateArgs),
    /// Let a version open only. After the current one nothing is sealed until `rotate`
    Retire(RetireArgs),
    /// Wipe a retired version for good: whatever is still under it is lost
    Destroy(DestroyArgs),
    /// Put what is under old versions of a key under its current one
    Job(JobArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Name of the key
    pub(crate) name: KeyId,
    /// Then run a job in every folder where `vault seal --ring` wrote or a job ran
    #[arg(long)]
    pub(crate) run: bool,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

/// Which ring, and how it opens.
#[derive(Debug, Args)]
pub(crate) struct RingArgs {
    /// File of the ring
    #[arg(long, value_name = "FILE", env = "SPRAG_RING")]
    pub(crate) ring: PathBuf,
    #[command(flatten)]
    pub(crate) opens: OpensArgs,
}

/// How a ring opens.
#[derive(Debug, Args)]
pub(crate) struct OpensArgs {
    /// File that holds the key of the ring; `init` makes it if it is not there
    #[arg(long, value_name = "FILE", env = "SPRAG_RING_KEY_FILE")]
    pub(crate) ring_key_file: Option<PathBuf>,
}

/// A ring, where there may be none.
#[derive(Debug, Args)]
pub(crate) struct VaultRing {
    /// Keys are those of this ring: see `sprag keys`
    #[arg(long, value_name = "FILE")]
    pub(crate) ring: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opens: OpensArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this key
    pub(crate) name: Option<KeyId>,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name of the key: 1 to 64 of A-Z a-z 0-9 . _ : -
    pub(crate) name: KeyId,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Its name in the ring
    pub(crate) name: KeyId,
    /// Where it is. lumera-env: LUMERA_KEY_<NAME>, or LUMERA_MEMORY_KEY for `env:LUMERA_MEMORY_KEY`; lumera-files: the folder
    /// with <name>.key; lumera-json: keys.json; aegis: aegis_key.key
    #[arg(long, value_enum)]
    pub(crate) from: From,
    /// The file or folder [default: where that program keeps it; none for aegis]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// Its name there, if it is another
    #[arg(long, value_name = "NAME")]
    pub(crate) old_name: Option<KeyId>,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

/// Who keeps a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    LumeraEnv,
    LumeraFiles,
    LumeraJson,
    Aegis,
}

#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    /// Name of the key
    pub(crate) name: KeyId,
    /// Which version [default: the current one]
    pub(crate) version: Option<u32>,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// Name of the key
    pub(crate) name: KeyId,
    /// Which version
    pub(crate) version: u32,
    /// Do it; without it a terminal is asked
    #[arg(long)]
    pub(crate) yes: bool,
    /// Look into this folder, too, whether something is still under it. Folders where `vault seal --ring` wrote and where jobs
    /// ran are looked into anyway
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Vec<PathBuf>,
    /// Do not look into this folder, now or later: what is under it there is given up
    #[arg(long, value_name = "DIR")]
    pub(crate) abandon: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Begin a job over a folder, or go on with the one that is there
    Start(StartArgs),
    /// Show how far the job of a folder is
    Status(StatusArgs),
    /// Go on with the job of a folder, after whatever ended it
    Resume(ResumeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The folder, with all that are in it
    pub(crate) folder: PathBuf,
    /// The key whose data is put under its current version
    #[arg(long, value_name = "NAME")]
    pub(crate) key: KeyId,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The folder
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The folder
    pub(crate) folder: PathBuf,
}

/// What the files do not say of themselves.
#[derive(Debug, Args)]
pub(crate) struct HowArgs {
    /// What the files were sealed with. `{file}` in VALUE stands for the path of each within the folder
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) context: Vec<String>,
    /// Files of the older form `raw12` are there as well, at most 1 GiB each: upgrade them to evlt/v1, or keep their form
    #[arg(long, value_enum)]
    pub(crate) raw12: Option<Raw12>,
}

/// What becomes of older files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Raw12 {
    Upgrade,
    Keep,
}
