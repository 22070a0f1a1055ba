//! `yadtq workers`: who works.

use clap::Args;
use comfy_table::{Cell, Color};
use yadtq::WorkerInfo;

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::Row,
    table::Column,
    text,
    time::{age, ago},
};

/// List the workers that are alive
///
/// RUNNING: tasks it runs, of how many it can run at once. DONE: tasks ended since it started, failures included. SEEN:
/// its last heartbeat; one comes every 2 seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq workers
  yadtq workers --json | jq '.[] | {host, running, slots}'")]
pub(crate) struct Workers {}

impl Workers {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut workers = global.connect().await?.admin().workers().await?;
        workers.sort_by(|a, b| (&a.host, a.started_at, &a.id).cmp(&(&b.host, b.started_at, &b.id)));
        let why = format!("no worker is alive in namespace {}; tasks wait until one starts", global.namespace());
        global.output().list(workers, &why)?;
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
            Cell::new(text::line(&self.id)),
            Cell::new(text::line(&self.host)),
            Cell::new(self.pid),
            Cell::new(format!("{}/{}", self.running, self.slots)),
            Cell::new(self.processed),
            if self.failed > 0 { failed.fg(Color::DarkRed) } else { failed },
            Cell::new(age(self.started_at)),
            Cell::new(ago(self.seen_at)),
            Cell::new(text::line(&self.queues.join(", "))),
        ]
    }
}
