//! `yadtq workers`: the live workers.

use clap::Args;
use comfy_table::{Cell, Color};
use yadtq::admin::WorkerInfo;

use crate::{
    exit::Exit,
    failure::Failure,
    global::Global,
    output::Row,
    table::{self, Column},
    time::{age, ago},
};

/// List the live workers
///
/// RUNNING: tasks that the worker runs, and how many it can run at once. DONE: tasks that ended since it started, including
/// failed ones. SEEN: its last heartbeat; workers send one every 2 seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq workers
  yadtq workers --json | jq '.[] | {host, running, slots}'")]
pub(crate) struct Workers {}

impl Workers {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut workers = global.connect().await?.admin().workers().await?;
        workers.sort_by(|a, b| (&a.host, a.started_at(), &a.id).cmp(&(&b.host, b.started_at(), &b.id)));
        let none = format!("no worker is alive in namespace {}; tasks wait until one starts", global.namespace());
        global.output().list(workers, &none)?;
        Ok(Exit::Done)
    }
}

impl Row for WorkerInfo {
    const COLUMNS: &'static [Column] = &[
        Column::text("WORKER"),
        Column::text("HOST"),
        Column::number("PID"),
        Column::number("RUNNING"),
        Column::number("DONE"),
        Column::number("FAILED"),
        Column::text("UP"),
        Column::text("SEEN"),
        Column::text("QUEUES"),
    ];

    fn cells(&self) -> Vec<Cell> {
        let failed = Cell::new(self.failed);
        vec![
            table::text(&self.id),
            table::text(&self.host),
            Cell::new(self.pid),
            Cell::new(format!("{}/{}", self.running, self.slots)),
            Cell::new(self.processed),
            if self.failed > 0 { failed.fg(Color::DarkRed) } else { failed },
            Cell::new(age(self.started_at())),
            Cell::new(ago(self.seen_at())),
            table::text(&self.queues.join(", ")),
        ]
    }
}
