//! `yadtq workers`: who works.

use clap::Args;
use comfy_table::{Cell, Color};
use serde::Serialize;
use yadtq::WorkerInfo;

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::{self, Answer},
    table::{self, Column},
    text,
    time::{age, ago},
};

const COLUMNS: [Column; 9] = [
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

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<WorkerInfo>);

impl Answer for List {
    fn human(&self) -> String {
        table::list(&COLUMNS, self.0.iter().map(row))
    }
}

impl Workers {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut workers = global.connect().await?.admin().workers().await?;
        workers.sort_by(|a, b| (&a.host, a.started_at, &a.id).cmp(&(&b.host, b.started_at, &b.id)));
        let (output, none) = (global.output(), workers.is_empty());
        output.print(&List(workers))?;
        if none && !output.is_json() {
            let namespace = global.namespace();
            output::note(&format!("no worker is alive in namespace {namespace}; tasks wait until one starts"));
        }
        Ok(Exit::Done)
    }
}

fn row(worker: &WorkerInfo) -> Vec<Cell> {
    let failed = Cell::new(worker.failed);
    vec![
        Cell::new(text::line(&worker.id)),
        Cell::new(text::line(&worker.host)),
        Cell::new(worker.pid),
        Cell::new(format!("{}/{}", worker.running, worker.slots)),
        Cell::new(worker.processed),
        if worker.failed > 0 { failed.fg(Color::DarkRed) } else { failed },
        Cell::new(age(worker.started_at)),
        Cell::new(ago(worker.seen_at)),
        Cell::new(text::line(&worker.queues.join(", "))),
    ]
}
