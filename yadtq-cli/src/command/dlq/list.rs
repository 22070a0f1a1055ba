//! `yadtq dlq list`: a page of dead letters.

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::admin::DeadLetter;

use super::filter::{Filter, NONE};
use crate::{
    exit::Exit,
    failure::Failure,
    global::Global,
    output::{self, Answer, Row},
    table::{self, Column},
    text,
    time::ago,
};

/// Longest error in the list, in characters. Longer ones are cut.
const MAX_ERROR_LENGTH: usize = 120;

/// List dead letters, oldest first
///
/// Prints one page. The cursor of the next page is in a note on stderr, and is `next` in the JSON; all pages together have
/// each letter once. PLACE: partition/offset of the letter. Every `dlq` command accepts it instead of a task id, even if
/// the letter has no task id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq list --task send_email --newer-than 1h
  yadtq dlq list --limit 1000 --json | jq -r '.letters[] | select(.reason == \"arguments\") | .id'")]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,

    /// Largest number of letters on the page, up to 10000
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: usize,

    /// Continue after an earlier page
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Page {
    letters: Vec<DeadLetter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Answer for Page {
    fn human(&self) -> String {
        output::rows(&self.letters)
    }
}

impl List {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let mut letters = self.filter.on(client.admin().dead_letters()).limit(self.limit);
        if let Some(cursor) = self.cursor {
            letters = letters.cursor(cursor);
        }
        let page = letters.page().await?;
        let page = Page { letters: page.letters, next: page.next };
        let note = match &page.next {
            Some(cursor) => Some(format!("there are more; use --cursor {cursor}")),
            None => page.letters.is_empty().then(|| NONE.to_owned()),
        };
        global.output().print_with(&page, note.as_deref())?;
        Ok(Exit::Done)
    }
}

impl Row for DeadLetter {
    const COLUMNS: &'static [Column] = &[
        Column::text("PLACE"),
        Column::text("DIED"),
        Column::text("REASON"),
        Column::text("QUEUE"),
        Column::text("TASK"),
        Column::text("ID"),
        Column::number("ATTEMPTS"),
        Column::text("ERROR"),
    ];

    fn cells(&self) -> Vec<Cell> {
        let or_dash = |value: Option<&str>| table::text(value.unwrap_or("-"));
        vec![
            Cell::new(self.place),
            Cell::new(self.at.map_or_else(|| "-".to_owned(), ago)),
            table::text(&self.reason),
            or_dash(self.queue.as_deref()),
            or_dash(self.task.as_deref()),
            or_dash(self.id.as_ref().map(yadtq::TaskId::as_str)),
            Cell::new(self.attempts),
            table::text(&text::cut(&self.error, MAX_ERROR_LENGTH, "`yadtq dlq show` prints all")),
        ]
    }
}
