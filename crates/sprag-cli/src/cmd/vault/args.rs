//! What stands on the command line after `sprag vault`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sprag_vault::raw12::pyagent;

use crate::cmd::keys::args::VaultRing;

const NOTES: &str = "\
Keys:
  --key takes files of `sprag vault keygen`; with --ring, the name of a key in that ring. --passphrase takes SPRAG_VAULT_PASSPHRASE, else asks.
  What takes its place (--new-passphrase, --add-passphrase): SPRAG_VAULT_NEW_PASSPHRASE, else asks.

Files:
  OUT appears whole or not at all, with the mode of FILE, or for its owner alone if that was a pipe.
  Without -o the output goes to a pipe, piece by piece as it is authenticated: only exit code 0 says
  that it was everything.";

/// `sprag vault`.
#[derive(Debug, Args)]
pub(crate) struct VaultArgs {
    #[command(subcommand)]
    pub(crate) command: VaultCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Make a key file, and print its public half, to which anybody can seal
    Keygen(KeygenArgs),
    /// Seal a file or a pipe
    #[command(after_long_help = NOTES)]
    Seal(SealArgs),
    /// Open what was sealed
    #[command(after_long_help = NOTES)]
    Open(OpenArgs),
    /// Show what a sealed file says of itself: no key is needed, and nothing of it is verified
    Inspect(Input),
    /// List who can open a sealed file: not verified either
    Recipients(Input),
    /// Change who can open it, and leave the payload as it is. Who could open it keeps what he had: `rekey` shuts him out
    #[command(after_long_help = NOTES)]
    Reseal(ResealArgs),
    /// Encrypt it anew, under another key
    #[command(after_long_help = NOTES)]
    Rekey(RekeyArgs),
    /// Open what an older program wrote, tell what was weak about it, and seal it under another key
    #[command(after_long_help = NOTES)]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// Where to write the key; nothing may be there
    #[arg(long, value_name = "FILE", required_unless_present = "show")]
    pub(crate) out: Option<PathBuf>,
    /// A key without a public half: who can seal with it can open, too
    #[arg(long)]
    pub(crate) symmetric: bool,
    /// Print the public half of a key that is there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "symmetric"])]
    pub(crate) show: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Input {
    /// Without it, or with `-`, standard input
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Out {
    /// Where to; without it, or with `-`, standard output
    #[arg(long, short, value_name = "OUT")]
    pub(crate) out: Option<PathBuf>,
    /// Replace OUT if it is there
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ContextArgs {
    /// What the file belongs to. It is not stored: the same is needed to open it
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) context: Vec<String>,
}

/// Whom to seal to.
#[derive(Debug, Args)]
pub(crate) struct To {
    /// To this public key; the id stands in the file in clear
    #[arg(long, value_name = "[ID=]PUBLIC")]
    pub(crate) recipient: Vec<String>,
    /// To the owner of this key file; with --ring, under the current version of this key. A symmetric one excludes all others
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) key: Vec<PathBuf>,
    /// To whoever knows a passphrase
    #[arg(long)]
    pub(crate) passphrase: bool,
    #[command(flatten)]
    pub(crate) ring: VaultRing,
}

/// What to open with.
#[derive(Debug, Args)]
pub(crate) struct With {
    /// With this key file; with --ring, with this key of it, and without it with whichever the file names
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) key: Vec<PathBuf>,
    /// With a passphrase; without --key it is asked for anyway if the file has one
    #[arg(long)]
    pub(crate) passphrase: bool,
    #[command(flatten)]
    pub(crate) ring: VaultRing,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Form {
    /// Pieces of 2^N bytes, 12 to 24 [default: 16, 64 KiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(12..=24))]
    pub(crate) chunk_log2: Option<u8>,
    /// How to encrypt [default: aes256-gcm]
    #[arg(long, value_enum)]
    pub(crate) suite: Option<SuiteArg>,
}

/// How the payload is encrypted.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SuiteArg {
    #[value(name = "aes256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

#[derive(Debug, Args)]
pub(crate) struct SealArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) out: Out,
    #[command(flatten)]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) out: Out,
    #[command(flatten)]
    pub(crate) with: With,
}

#[derive(Debug, Args)]
pub(crate) struct ResealArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) out: Out,
    #[command(flatten)]
    pub(crate) with: With,
    /// Add this public key
    #[arg(long, value_name = "[ID=]PUBLIC")]
    pub(crate) add: Vec<String>,
    /// Add the owner of this key file
    #[arg(long, value_name = "FILE")]
    pub(crate) add_key: Vec<PathBuf>,
    /// Add whoever knows a passphrase
    #[arg(long)]
    pub(crate) add_passphrase: bool,
    /// Remove the recipient of this number, which `recipients` shows
    #[arg(long, value_name = "NUMBER")]
    pub(crate) remove: Vec<usize>,
    /// Remove the recipients of this id
    #[arg(long, value_name = "ID")]
    pub(crate) remove_id: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RekeyArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) out: Out,
    #[command(flatten)]
    pub(crate) with: With,
    /// To this public key from now on
    #[arg(long, value_name = "[ID=]PUBLIC")]
    pub(crate) recipient: Vec<String>,
    /// To the owner of this key file from now on
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key: Vec<PathBuf>,
    /// To whoever knows a new passphrase from now on
    #[arg(long)]
    pub(crate) new_passphrase: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// At most 1 GiB
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) out: Out,
    /// Who wrote it
    #[arg(long, value_enum)]
    pub(crate) from: From,
    /// Its key. Lumera: base64, 64 digits, or keys.json; AEGIS: base64 or 32 bytes; PyAgent: <user>_keys.json, or 64 digits
    #[arg(long, value_name = "FILE", required_unless_present = "old_salt")]
    pub(crate) old_key: Option<PathBuf>,
    /// Lumera: which key of keys.json
    #[arg(long, value_name = "ID", requires = "old_key")]
    pub(crate) old_key_id: Option<String>,
    /// Lumera: it was sealed under a password with this salt, 32 digits; the password is taken from
    /// SPRAG_VAULT_OLD_PASSPHRASE, else asked for
    #[arg(long, value_name = "DIGITS", conflicts_with = "old_key")]
    pub(crate) old_salt: Option<String>,
    /// Lumera: what stood beside it, which is verified
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata: Option<PathBuf>,
    /// Lumera: its address, which is verified
    #[arg(long, value_name = "cascade://DIGITS")]
    pub(crate) address: Option<String>,
    /// AEGIS: a single blob, and not a file of chunks
    #[arg(long)]
    pub(crate) single: bool,
    /// PyAgent: what it holds
    #[arg(long, value_enum, default_value = "memory")]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    Lumera,
    Aegis,
    Pyagent,
}

/// What a blob of PyAgent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    Memory,
    Chat,
}

impl Purpose {
    pub(super) fn legacy(self) -> pyagent::Purpose {
        match self {
            Self::Memory => pyagent::Purpose::Memory,
            Self::Chat => pyagent::Purpose::Chat,
        }
    }
}
