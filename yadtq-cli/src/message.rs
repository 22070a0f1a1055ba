//! What a person must know besides the answer: one line each on stderr.
//!
//! `anstream` removes the colours where they do not belong: if stderr is not a terminal, with `NO_COLOR`, with
//! `TERM=dumb`. Nothing here panics: the `eprint` macros would, if stderr is closed.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use crate::text;

/// Why the command failed.
pub(crate) fn error(line: &str) {
    write(AnsiColor::Red.on_default().bold(), "error", line);
}

/// The command did its work, but perhaps not as the user meant it.
pub(crate) fn warning(line: &str) {
    write(AnsiColor::Yellow.on_default().bold(), "warning", line);
}

/// Something that helps to read the answer.
pub(crate) fn note(line: &str) {
    write(Style::new().bold(), "note", line);
}

fn write(style: Style, label: &str, line: &str) {
    // If stderr cannot be written, there is no way left to report it.
    let _ = writeln!(anstream::stderr(), "{style}{label}:{style:#} {}", text::line(line));
}
