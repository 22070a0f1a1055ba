//! `yadtq dlq purge`: forgets dead letters.

use std::io::IsTerminal as _;

use clap::Args;
use serde::Serialize;

use super::filter::{Filter, Which};
use crate::{cli::Global, confirm, exit::Exit, failure::Failure, output::Answer, progress::Progress};

/// Forget dead letters; their tasks stay failed
///
/// Asks before it does, unless told otherwise. Exits with 3 if there was none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq purge --older-than 30days --dry-run
  yadtq dlq purge --reason unreadable --yes
  yadtq dlq purge --all")]
pub(super) struct Purge {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    filter: Filter,

    /// Only count them
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    purged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_purge: Option<u64>,
}

impl Answer for Summary {
    fn human(&self) -> String {
        match (self.purged, self.would_purge) {
            (Some(count), _) => format!("purged {count}"),
            (None, count) => format!("would purge {}", count.unwrap_or_default()),
        }
    }
}

impl Purge {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.which.check(&self.filter)?;
        if !self.dry_run && !self.yes && !std::io::stdin().is_terminal() {
            return Err(Failure::Input("there is nobody to ask; say --yes to purge, or --dry-run to count".to_owned()));
        }
        let client = global.connect().await?;
        let letters = self.which.on(self.filter.on(client.admin().dead_letters()));
        if self.dry_run || !self.yes {
            let count = letters.clone().count().await?;
            if self.dry_run {
                global.output().print(&Summary { purged: None, would_purge: Some(count) })?;
                return Ok(Exit::Done);
            }
            if count == 0 {
                return self.which.none();
            }
            confirm::purge(&format!("purge {count} dead letter(s)?"))?;
        }
        let progress = Progress::start("dead letters purged");
        let purged = letters.purge_each(|done| progress.reached(done)).await;
        drop(progress);
        let purged = purged?;
        global.output().print(&Summary { purged: Some(purged), would_purge: None })?;
        if purged == 0 { self.which.none() } else { Ok(Exit::Done) }
    }
}
