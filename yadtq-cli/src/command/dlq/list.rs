//! `yadtq dlq list`: a page of dead letters.

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;
use yadtq::DeadLetter;

use super::filter::Filter;
use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::{self, Answer},
    table::{self, Column},
    text,
    time::ago,
};

/// Longer errors are cut, in characters.
const MAX_ERROR: usize = 120;

const COLUMNS: [Column; 8] = [
    Column::text("PLACE"),
    Column::text("DIED"),
    Column::text("REASON"),
    Column::text("QUEUE"),
    Column::text("TASK"),
    Column::text("ID"),
    Column::number("ATTEMPTS"),
    Column::text("ERROR"),
];

/// List dead letters, oldest first
///
/// A page at a time: the cursor of the next page is said on stderr, and is `next` in the JSON. All pages together have
/// each letter once. PLACE is a name of a letter that is good for every command here, also where it has no task id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq list --task send_email --newer-than 1h
  yadtq dlq list --limit 1000 --json | jq -r '.letters[] | select(.reason == \"arguments\") | .id'")]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,

    /// How many at most, up to 10000
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: usize,

    /// Go on after an earlier page
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
        table::list(&COLUMNS, self.letters.iter().map(row))
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
        let output = global.output();
        output.print(&page)?;
        if !output.is_json() {
            match &page.next {
                Some(cursor) => output::note(&format!("there are more: --cursor {cursor}")),
                None if page.letters.is_empty() => output::note("there is no such dead letter"),
                None => {}
            }
        }
        Ok(Exit::Done)
    }
}

fn row(letter: &DeadLetter) -> Vec<Cell> {
    let cell = |value: Option<&str>| Cell::new(text::line(value.unwrap_or("-")));
    vec![
        Cell::new(letter.place),
        Cell::new(letter.at.map_or_else(|| "-".to_owned(), ago)),
        cell(Some(&letter.reason)),
        cell(letter.queue.as_deref()),
        cell(letter.task.as_deref()),
        cell(letter.id.as_ref().map(yadtq::TaskId::as_str)),
        Cell::new(letter.attempts),
        Cell::new(text::line(&text::cut(&letter.error, MAX_ERROR, "`yadtq dlq show` prints all"))),
    ]
}
