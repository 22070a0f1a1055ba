//! `yadtq queues`: the queues, and how much waits and runs in them.

use std::time::SystemTime;

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::{
    Priority,
    admin::{Controls, QueueInfo},
};

use crate::{
    exit::Exit,
    failure::{Failure, REDIS_REMEDY},
    global::Global,
    message, output, table,
    table::Column,
    time,
};

/// List the queues, and how many tasks wait in each
///
/// There is one line for each priority that was used in a queue, the highest first. OLDEST: how long ago the oldest task that
/// waits or runs was put there. LAG: records above the offsets that workers have committed; behind a long task, ended ones count
/// too. DEPTH: records that Kafka holds, including those that it has not deleted yet. STATE: `open`, or `paused` if workers take no
/// tasks from it. PARTITIONS: the largest number of workers that can share the queue. Workers report about once a second.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq queues
  yadtq queues --json | jq '.[] | select(.waiting > 1000) | .queue'
  yadtq queues --json | jq '.[] | select(.priority == \"high\" and .waiting > 0)'
  yadtq queues --json | jq '.[] | select(now - .\"oldest-at\" / 1000 > 60)'")]
pub(crate) struct Queues {}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    queue: String,
    priority: Priority,
    partitions: usize,
    leaderless: usize,
    waiting: u64,
    /// `null` if Redis does not answer.
    running: Option<u64>,
    /// When the oldest task was written, in ms since the Unix epoch.
    #[serde(serialize_with = "time::write_some")]
    oldest_at: Option<SystemTime>,
    depth: u64,
    lag: u64,
    paused: bool,
}

impl Queues {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let admin = client.admin();
        let (queues, controls) = tokio::try_join!(admin.queues(), admin.controls())?;
        let namespace = global.namespace();
        let none = format!("no queue exists in namespace {namespace}; the first task or worker creates one");
        let rows: Vec<_> = queues.into_iter().map(|queue| Row::new(queue, &controls)).collect();
        let leaderless: Vec<_> = rows.iter().filter(|row| row.leaderless > 0).map(Row::leaderless_warning).collect();
        let has_running = rows.iter().all(|row| row.running.is_some());
        global.output().list(rows, &none)?;
        leaderless.iter().for_each(|warning| message::warning(warning));
        if !has_running {
            message::warning(&format!("redis does not answer, so running tasks count as waiting; {REDIS_REMEDY}"));
        }
        Ok(Exit::Done)
    }
}

impl output::Row for Row {
    const COLUMNS: &'static [Column] = &[
        Column::text("QUEUE"),
        Column::text("PRIORITY"),
        Column::number("PARTITIONS"),
        Column::number("WAITING"),
        Column::number("RUNNING"),
        Column::number("OLDEST"),
        Column::number("LAG"),
        Column::number("DEPTH"),
        Column::text("STATE"),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            table::text(&self.queue),
            Cell::new(self.priority),
            Cell::new(self.partitions),
            Cell::new(self.waiting),
            Cell::new(self.running.map_or_else(|| "?".to_owned(), |running| running.to_string())),
            Cell::new(self.oldest_at.map(time::age).unwrap_or_default()),
            Cell::new(self.lag),
            Cell::new(self.depth),
            Cell::new(if self.paused { "paused" } else { "open" }),
        ]
    }
}

impl Row {
    fn new(info: QueueInfo, controls: &Controls) -> Self {
        let (waiting, oldest_at) = (info.waiting(), info.oldest_at);
        let QueueInfo { queue, priority, partitions, leaderless, running, records, lag, .. } = info;
        let paused = controls.paused.iter().any(|paused| paused.queue == queue);
        Self { queue, priority, partitions, leaderless, waiting, running, oldest_at, depth: records, lag, paused }
    }

    fn leaderless_warning(&self) -> String {
        format!(
            "{} of the {} partitions of queue {} (priority {}) have no leader, because their broker is away: their tasks are not \
             counted, and wait until it is back",
            self.leaderless, self.partitions, self.queue, self.priority
        )
    }
}
