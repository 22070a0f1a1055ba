//! `yadtq controls`: the controls that are in effect.

use std::time::SystemTime;

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::admin::Controls as Found;

use crate::{
    exit::Exit,
    failure::Failure,
    global::Global,
    output::Answer,
    table::{self, Column},
    time::ago,
};

const COLUMNS: [Column; 4] =
    [Column::text("CONTROL"), Column::text("SINCE"), Column::text("TASKS"), Column::text("QUEUE OR TASK")];

/// List the controls in effect: paused queues, disabled tasks, purges
///
/// TASKS: what happens to tasks under this control. A purge stays in the list until the next purge of its queue; it
/// revoked the tasks that waited at that time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq controls
  yadtq controls --json | jq -r '.paused[].queue'")]
pub(crate) struct Controls {}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Found);

impl Answer for List {
    fn human(&self) -> String {
        let row = |control: &str, since: SystemTime, tasks: String, name: &str| {
            vec![Cell::new(control), Cell::new(ago(since)), Cell::new(tasks), table::text(name)]
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
        let none = format!("no controls are in effect in namespace {}", global.namespace());
        let note = (found == Found::default()).then_some(&*none);
        global.output().print_with(&List(found), note)?;
        Ok(Exit::Done)
    }
}
