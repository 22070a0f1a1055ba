//! `yadtq dlq purge`: deletes dead letters.

use clap::Args;
use serde::Serialize;

use super::filter::{Filter, Which};
use crate::{confirm::Confirm, exit::Exit, failure::Failure, global::Global, output::Answer, progress::Progress};

/// Delete dead letters; their tasks remain failed
///
/// Asks for confirmation unless --yes is given. Exits with 3 if no dead letter matches, or none has one of the ids.
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

    /// Only count the dead letters
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    confirm: Confirm,
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
        if !self.dry_run {
            self.confirm.check("use --yes to purge, or --dry-run to count")?;
        }
        let client = global.connect().await?;
        let letters = self.which.on(self.filter.on(client.admin().dead_letters()));
        let mut missing = self.which.missing();
        missing.look(&letters).await?;
        let done = missing.exit(Exit::Done);
        if self.dry_run || !self.confirm.yes {
            let count = letters.clone().count().await?;
            if self.dry_run {
                global.output().print(&Summary { purged: None, would_purge: Some(count) })?;
                return Ok(done);
            }
            if count == 0 {
                return self.which.none();
            }
            self.confirm.ask(&format!("purge {count} dead letter(s)?"))?;
        }
        let progress = Progress::start("dead letters purged");
        let purged = letters.purge_each(|done| progress.reached(done)).await;
        drop(progress);
        let purged = purged?;
        global.output().print(&Summary { purged: Some(purged), would_purge: None })?;
        if purged == 0 { self.which.none() } else { Ok(done) }
    }
}
