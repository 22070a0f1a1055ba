//! `yadtq controls`: which orders hold.

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::Controls as Found;

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::Answer,
    table::{self, Column},
    text,
    time::ago,
};

const COLUMNS: [Column; 4] =
    [Column::text("ORDER"), Column::text("SINCE"), Column::text("TASKS"), Column::text("QUEUE OR TASK")];

/// List what holds: paused queues, disabled tasks, purges
///
/// TASKS: what becomes of them. A purge is listed until the next one of its queue; it ended what waited at that time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq controls
  yadtq controls --json | jq -r '.paused[].queue'")]
pub(crate) struct Controls {}

#[derive(Serialize)]
#[serde(transparent)]
struct Told(Found);

impl Answer for Told {
    fn human(&self) -> String {
        let row = |order: &str, since: u64, then: String, name: &str| {
            vec![Cell::new(order), Cell::new(ago(since)), Cell::new(then), Cell::new(text::line(name))]
        };
        let Found { paused, disabled, purged, .. } = &self.0;
        let paused = paused.iter().map(|queue| row("pause", queue.since, "wait".to_owned(), &queue.queue));
        let disabled = disabled.iter().map(|task| row("disable", task.since, task.then.to_string(), &task.task));
        let purged = purged.iter().map(|queue| row("purge", queue.at, "revoked".to_owned(), &queue.queue));
        table::list(&COLUMNS, paused.chain(disabled).chain(purged))
    }
}

impl Controls {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let found = global.connect().await?.admin().controls().await?;
        let is_empty = found == Found::default();
        let why = format!("no order holds in namespace {}", global.namespace());
        global.output().print_or(&Told(found), is_empty, &why)?;
        Ok(Exit::Done)
    }
}
