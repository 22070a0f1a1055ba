//! `yadtq periodic`: the periodic tasks, which the clock starts.

use std::time::SystemTime;

use clap::Args;
use comfy_table::Cell;
use yadtq::admin::PeriodicInfo;

use crate::{exit::Exit, failure::Failure, global::Global, output::Row, table, table::Column, time::ago};

/// List the periodic tasks that workers declare, with their next and last runs
///
/// NEXT, LAST: the next run, and the last one that was sent; `yadtq status NAME@TIME` shows how it ended (--json has the
/// id). DECLARED: when a worker last declared the task; every worker does so every 10 seconds, and a task that no worker
/// declares any more stays in the list until 7 days after its next run. MISSED: what happens to runs that were due while no
/// worker was up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq periodic
  yadtq periodic --json | jq -r '.[] | select(.name == \"nightly-report\") | .\"last-id\"'")]
pub(crate) struct Periodic {}

impl Periodic {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let all = global.connect().await?.admin().periodics().await?;
        let none = format!("no worker declares a periodic task in namespace {}", global.namespace());
        global.output().list(all, &none)?;
        Ok(Exit::Done)
    }
}

impl Row for PeriodicInfo {
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("TASK"),
        Column::text("QUEUE"),
        Column::text("NEXT"),
        Column::text("LAST"),
        Column::text("DECLARED"),
        Column::text("MISSED"),
        Column::text("SCHEDULE"),
    ];

    fn cells(&self) -> Vec<Cell> {
        let time = |time: Option<SystemTime>| Cell::new(time.map_or_else(|| "never".to_owned(), ago));
        let schedule = match &self.time_zone {
            Some(zone) => format!("{} {zone}", self.schedule),
            None => self.schedule.clone(),
        };
        vec![
            table::text(&self.name),
            table::text(&self.task),
            table::text(&self.queue),
            time(self.next),
            time(self.last),
            Cell::new(ago(self.declared_at)),
            Cell::new(self.missed),
            table::text(&schedule),
        ]
    }
}
