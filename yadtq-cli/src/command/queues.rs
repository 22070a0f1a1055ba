//! `yadtq queues`: the queues and their consumer lag.

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::{
    Priority,
    admin::{Controls, QueueDepth},
};

use crate::{exit::Exit, failure::Failure, global::Global, output, table, table::Column};

/// List the queues, and how many tasks wait in each
///
/// There is one line for each priority that was used in a queue, the highest first. LAG: tasks that wait or run. DEPTH:
/// records that Kafka holds, including those of ended tasks that Kafka has not deleted yet. STATE: `open`, or `paused` if
/// workers take no tasks from it. PARTITIONS: the largest number of workers that can share the queue.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq queues
  yadtq queues --json | jq '.[] | select(.lag > 1000) | .queue'
  yadtq queues --json | jq '.[] | select(.priority == \"high\" and .lag > 0)'")]
pub(crate) struct Queues {}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    queue: String,
    priority: Priority,
    partitions: usize,
    depth: u64,
    lag: u64,
    paused: bool,
}

impl Queues {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let admin = client.admin();
        let (depths, controls) = tokio::try_join!(admin.queues(), admin.controls())?;
        let namespace = global.namespace();
        let none = format!("no queue exists in namespace {namespace}; the first task or worker creates one");
        let rows = depths.into_iter().map(|depth| Row::new(depth, &controls)).collect();
        global.output().list(rows, &none)?;
        Ok(Exit::Done)
    }
}

impl output::Row for Row {
    const COLUMNS: &'static [Column] = &[
        Column::text("QUEUE"),
        Column::text("PRIORITY"),
        Column::number("PARTITIONS"),
        Column::number("DEPTH"),
        Column::number("LAG"),
        Column::text("STATE"),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            table::text(&self.queue),
            Cell::new(self.priority),
            Cell::new(self.partitions),
            Cell::new(self.depth),
            Cell::new(self.lag),
            Cell::new(if self.paused { "paused" } else { "open" }),
        ]
    }
}

impl Row {
    fn new(depth: QueueDepth, controls: &Controls) -> Self {
        let QueueDepth { queue, priority, partitions, records, lag } = depth;
        let paused = controls.paused.iter().any(|paused| paused.queue == queue);
        Self { queue, priority, partitions, depth: records, lag, paused }
    }
}
