//! `yadtq periodic`: what runs by the clock.

use clap::Args;
use comfy_table::Cell;
use yadtq::PeriodicInfo;

use crate::{cli::Global, exit::Exit, failure::Failure, output::Row, table::Column, text, time::ago};

/// List the periodic tasks that workers declare, with their next and last runs
///
/// LAST: the latest tick that was sent; `yadtq status NAME@TIME` shows what became of it (`--json` has the id). DECLARED:
/// when a worker last said so; each does every 10 seconds, and what no worker declares any more is listed until 7 days
/// after its next tick. MISSED: what becomes of ticks for which no worker was up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq periodic
  yadtq periodic --json | jq -r '.[] | select(.name == \"nightly-report\") | .\"last-id\"'")]
pub(crate) struct Periodic {}

impl Periodic {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let all = global.connect().await?.admin().periodics().await?;
        let why = format!("no worker declares a periodic task in namespace {}", global.namespace());
        global.output().list(all, &why)?;
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
        let time = |time: Option<u64>| Cell::new(time.map_or_else(|| "never".to_owned(), ago));
        let schedule = match &self.time_zone {
            Some(zone) => format!("{} {zone}", self.schedule),
            None => self.schedule.clone(),
        };
        vec![
            Cell::new(text::line(&self.name)),
            Cell::new(text::line(&self.task)),
            Cell::new(text::line(&self.queue)),
            time(self.next),
            time(self.last),
            Cell::new(ago(self.declared_at)),
            Cell::new(text::line(&self.missed)),
            Cell::new(text::line(&schedule)),
        ]
    }
}
