//! `yadtq periodic`: what runs by the clock.

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::PeriodicInfo;

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::{self, Answer},
    table::{self, Column},
    text,
    time::ago,
};

const COLUMNS: [Column; 8] = [
    Column::text("NAME"),
    Column::text("TASK"),
    Column::text("QUEUE"),
    Column::text("NEXT"),
    Column::text("LAST"),
    Column::text("DECLARED"),
    Column::text("MISSED"),
    Column::text("SCHEDULE"),
];

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

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<PeriodicInfo>);

impl Answer for List {
    fn human(&self) -> String {
        table::list(&COLUMNS, self.0.iter().map(row))
    }
}

impl Periodic {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let all = global.connect().await?.admin().periodics().await?;
        let (output, none) = (global.output(), all.is_empty());
        output.print(&List(all))?;
        if none && !output.is_json() {
            let namespace = global.namespace();
            output::note(&format!("no worker declares a periodic task in namespace {namespace}"));
        }
        Ok(Exit::Done)
    }
}

fn row(periodic: &PeriodicInfo) -> Vec<Cell> {
    let time = |time: Option<u64>| Cell::new(time.map_or_else(|| "never".to_owned(), ago));
    let schedule = match &periodic.time_zone {
        Some(zone) => format!("{} {zone}", periodic.schedule),
        None => periodic.schedule.clone(),
    };
    vec![
        Cell::new(text::line(&periodic.name)),
        Cell::new(text::line(&periodic.task)),
        Cell::new(text::line(&periodic.queue)),
        time(periodic.next),
        time(periodic.last),
        Cell::new(ago(periodic.declared_at)),
        Cell::new(text::line(&periodic.missed)),
        Cell::new(text::line(&schedule)),
    ]
}
