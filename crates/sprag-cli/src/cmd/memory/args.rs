//! What stands on the command line after `sprag memory` and `sprag mcp`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::shared::call::{Filter, Whose};
use crate::when;

/// Whose memories.
#[derive(Debug, Args)]
pub(crate) struct WhoseArgs {
    /// Whose memories [default: those of the profile's user]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Those that one agent keeps, apart from all others
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) agent: Option<String>,
}

impl WhoseArgs {
    pub(crate) fn to_whose(&self) -> Whose {
        Whose {
            user: self.user.clone(),
            agent: self.agent.clone(),
        }
    }
}

/// `sprag memory`.
#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    pub(crate) whose: WhoseArgs,
    #[command(subcommand)]
    pub(crate) command: MemoryCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// Remember something, and print the id of the memory
    Add(AddArgs),
    /// Print a memory
    Get(GetArgs),
    /// List memories, the newest first
    List(ListArgs),
    /// Find the memories that are most similar to some words
    Search(SearchArgs),
    /// Delete memories, or erase them for good
    Delete(DeleteArgs),
    /// Take memories from a file that `export` wrote, or that has one JSON object per line
    Import(ImportArgs),
    /// Write all memories to a file, IN CLEAR: whoever gets it reads them
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What to remember; without it, or with `-`, standard input to its end. Other users of this machine may see arguments
    pub(crate) text: Option<String>,
    /// A short title
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// A tag, by which it can be listed
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// When it was, if not now: 2026-01-31, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) at: Option<u64>,
    /// Anything else that belongs to it
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Replace secrets and personal data (private keys, tokens, cards, addresses) before it is kept
    #[arg(long)]
    pub(crate) redact: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The id that `add`, `list` or `search` printed
    pub(crate) id: String,
    /// Print nothing but the content, as it is
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

/// Which ones.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only with this tag; several times: with all of them
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Only made at this time or later: 2026-01-31, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) since: Option<u64>,
    /// Only made before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) until: Option<u64>,
}

impl FilterArgs {
    pub(crate) fn to_filter(&self) -> Filter {
        Filter {
            tags: self.tag.clone(),
            since: self.since,
            until: self.until,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// At most so many [default: all]
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Words to look for. Words are compared, not meanings
    pub(crate) query: String,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// At most so many, 1 to 100 [default: 10]
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// At least so similar, -1 to 1 [default: 0.15]
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f32>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Which ones
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// For good: the keys that open them are destroyed, which is done once all your devices have said so. A deleted memory can be
    /// erased later
    #[arg(long)]
    pub(crate) erase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file; `-` is standard input
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to write it: whole or not at all, readable for you alone; a file that is there is left alone
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// `sprag mcp`.
#[derive(Debug, Args)]
pub(crate) struct McpArgs {
    #[command(flatten)]
    pub(crate) whose: WhoseArgs,
    /// Keep secrets and personal data as they come, instead of replacing them by [redacted:...] before anything is kept
    #[arg(long)]
    pub(crate) no_redaction: bool,
}
