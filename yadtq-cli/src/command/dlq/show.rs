//! `yadtq dlq show`: everything about one dead letter.

use clap::Args;
use comfy_table::{Cell, Color};
use serde::Serialize;
use yadtq::admin::DeadLetter;

use crate::{exit::Exit, failure::Failure, global::Global, output::Answer, table, text, time::ago};

/// Longest record that is shown, in characters. Longer ones are cut.
const MAX_RECORD_LENGTH: usize = 4_000;

/// Show a dead letter: its reason, its source and the record itself
///
/// If a task has several letters, the latest is shown. In the JSON the record is a string, or an array of bytes if it is not
/// UTF-8.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq show d5750c0e-ed82
  yadtq dlq show 3/1042 --json | jq -r '.value | fromjson | .args'")]
pub(super) struct Show {
    /// The task's id, or the letter's place, as `yadtq dlq list` shows it
    id: String,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(DeadLetter);

impl Answer for Shown {
    fn human(&self) -> String {
        let letter = &self.0;
        let cell = |value: &str| Some(table::text(value));
        let source = letter.source_topic.as_deref().zip(letter.source).map(|(topic, place)| format!("{topic} {place}"));
        let cut = letter.cut_from.map(|bytes| Cell::new(format!("from {bytes} bytes, so it cannot be replayed")));
        let value = String::from_utf8_lossy(letter.value());
        let rest = format!("yadtq dlq show {} --json prints all", letter.place);
        let mut rows = vec![
            ("task", letter.task.as_deref().and_then(cell)),
            ("id", letter.id.as_ref().and_then(|id| cell(id.as_str()))),
            ("queue", letter.queue.as_deref().and_then(cell)),
            ("reason", cell(&letter.reason)),
            ("error", Some(Cell::new(text::lines(&letter.error)).fg(Color::DarkRed))),
            ("attempts", Some(Cell::new(letter.attempts))),
            ("crashes", (letter.deliveries > 0).then(|| Cell::new(letter.deliveries).fg(Color::DarkYellow))),
            ("died", letter.at.map(|at| Cell::new(ago(at)))),
            ("place", cell(&letter.place.to_string())),
            ("source", source.as_deref().and_then(cell)),
            ("cut", cut),
        ];
        let headers = letter.headers().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
        rows.extend(headers.map(|header| ("header", cell(&header))));
        rows.push(("record", cell(&text::cut(&value, MAX_RECORD_LENGTH, &rest))));
        table::properties(rows)
    }
}

impl Show {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let mut walk = client.admin().dead_letters().id(&self.id).walk().await?;
        let (mut latest, mut others) = (None, 0);
        while let Some(letter) = walk.next().await? {
            others += usize::from(latest.replace(letter).is_some());
        }
        let Some(letter) = latest else { return Err(Failure::NoLetter(self.id)) };
        let note = format!("this task has {others} earlier dead letter(s)");
        global.output().print_with(&Shown(letter), (others > 0).then_some(&note))?;
        Ok(Exit::Done)
    }
}
