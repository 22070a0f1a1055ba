//! Answers on stdout, for people or as JSON.
//!
//! `anstream` removes the colours where they do not belong: if stdout is not a terminal, with `NO_COLOR`, with
//! `TERM=dumb`. Nothing here panics: the `print` macros would, if the reader has closed the pipe.

use std::io::{IsTerminal as _, Write};

use comfy_table::Cell;
use serde::Serialize;

use crate::{
    failure::Failure,
    message,
    table::{self, Column},
    text,
};

/// The answer of a command. Its JSON is a contract: keys are kebab-case and never change.
pub(crate) trait Answer: Serialize {
    /// The same answer for people; it may contain colours. An empty text prints nothing.
    fn human(&self) -> String;

    /// Whether [`human`](Self::human) is somebody's data: a program that reads it gets every byte, and a terminal no control
    /// characters.
    const IS_DATA: bool = false;
}

/// The form in which answers are printed: for people, or as JSON.
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

    /// Prints an answer.
    pub(crate) fn print<A: Answer>(self, answer: &A) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string(answer).map_err(|error| Failure::Output(error.into()))?;
            // Not through anstream, which would remove characters as well.
            write_to(&mut std::io::stdout().lock(), &json)
        } else if !A::IS_DATA {
            write(&answer.human())
        } else if std::io::stdout().is_terminal() {
            write(&text::lines(&answer.human()))
        } else {
            write_to(&mut std::io::stdout().lock(), &answer.human())
        }
    }

    /// Prints a list. If it is empty, people read `empty` instead.
    pub(crate) fn list<T: Row>(self, rows: Vec<T>, empty: &str) -> Result<(), Failure> {
        let is_empty = rows.is_empty();
        self.print_with(&List(rows), is_empty.then_some(empty))
    }

    /// Prints an answer and, for people only, a note.
    pub(crate) fn print_with(self, answer: &impl Answer, note: Option<&str>) -> Result<(), Failure> {
        self.print(answer)?;
        if let Some(note) = note
            && !self.json
        {
            message::note(note);
        }
        Ok(())
    }
}

/// One row of a list.
pub(crate) trait Row: Serialize {
    /// The columns, in the order of [`cells`](Self::cells).
    const COLUMNS: &'static [Column];

    fn cells(&self) -> Vec<Cell>;
}

/// The rows as a table with a header; an empty text if there are none.
pub(crate) fn rows<T: Row>(rows: &[T]) -> String {
    table::list(T::COLUMNS, rows.iter().map(Row::cells))
}

/// A table for people, an array in JSON.
#[derive(Serialize)]
#[serde(transparent)]
struct List<T>(Vec<T>);

impl<T: Row> Answer for List<T> {
    fn human(&self) -> String {
        rows(&self.0)
    }
}

/// Writes lines to stdout as they are.
pub(crate) fn write(lines: &str) -> Result<(), Failure> {
    write_to(&mut anstream::stdout().lock(), lines)
}

fn write_to(stdout: &mut impl Write, lines: &str) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(stdout, "{}", lines.trim_end_matches('\n')).and_then(|()| stdout.flush()).map_err(Failure::Output)
}
