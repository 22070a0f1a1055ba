//! Everything that is written: answers to stdout, what people must know besides to stderr.
//!
//! `anstream` takes the colours out where they do not belong: not a terminal, `NO_COLOR`, `TERM=dumb`.
//! Nothing here panics: the `print` macros would, when the reader has gone.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::Cell;
use serde::Serialize;

use crate::{
    failure::Failure,
    table::{self, Column},
    text,
};

/// What a command answers. Its JSON is a contract: keys are kebab-case and stay as they are.
pub(crate) trait Answer: Serialize {
    /// The same for people; may have colours. What has no line to show says why with [`note`].
    fn human(&self) -> String;
}

/// Where answers go, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Writes an answer.
    pub(crate) fn print(self, answer: &impl Answer) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string(answer).map_err(|error| Failure::Output(error.into()))?;
            write(&json)
        } else {
            write(&answer.human())
        }
    }

    /// Writes a list; people are told why, if there is nothing in it.
    pub(crate) fn list<T: Row>(self, things: Vec<T>, why: &str) -> Result<(), Failure> {
        let is_empty = things.is_empty();
        self.print_or(&List(things), is_empty, why)
    }

    /// Writes an answer; people are told why, if it does not show all that they may expect.
    pub(crate) fn print_or(self, answer: &impl Answer, is_short: bool, why: &str) -> Result<(), Failure> {
        self.print(answer)?;
        if is_short && !self.json {
            note(why);
        }
        Ok(())
    }
}

/// Things of one kind: a line each for people, an array in JSON.
#[derive(Serialize)]
#[serde(transparent)]
struct List<T>(Vec<T>);

/// A thing in a list.
pub(crate) trait Row: Serialize {
    /// What is told of it.
    const COLUMNS: &'static [Column];

    fn cells(&self) -> Vec<Cell>;
}

impl<T: Row> Answer for List<T> {
    fn human(&self) -> String {
        table::list(T::COLUMNS, self.0.iter().map(Row::cells))
    }
}

/// Writes lines as they are.
pub(crate) fn write(lines: &str) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{}", lines.trim_end_matches('\n')).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Says what went wrong.
pub(crate) fn error(line: &str) {
    say(AnsiColor::Red.on_default().bold(), "error", line);
}

/// Says what is done all the same, but perhaps not as meant.
pub(crate) fn warning(line: &str) {
    say(AnsiColor::Yellow.on_default().bold(), "warning", line);
}

/// Says what is good to know.
pub(crate) fn note(line: &str) {
    say(Style::new().bold(), "note", line);
}

fn say(style: Style, label: &str, line: &str) {
    // Without stderr there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{style}{label}:{style:#} {}", text::line(line));
}
