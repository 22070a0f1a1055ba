//! Tables for people: columns two spaces apart, without borders, so that the text can be copied and cut.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING,
};
use yadtq::Status;

use crate::text;

/// A column of a list.
pub(crate) struct Column {
    title: &'static str,
    alignment: CellAlignment,
}

impl Column {
    /// A column of words, aligned to the left.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Left }
    }

    /// A column of numbers, aligned to the right.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Right }
    }
}

/// A table with a header; an empty text if there are no rows. A row is always one line, even on a narrow terminal, so
/// long texts belong in the last column.
pub(crate) fn list(columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut table = plain();
    table.set_header(columns.iter().map(|column| name(column.title)));
    table.add_rows(rows);
    for (column, formatted) in columns.iter().zip(table.column_iter_mut()) {
        formatted.set_cell_alignment(column.alignment);
    }
    finish(&mut table)
}

/// The properties of one thing, a line each: a name and a value, which wraps. Properties without a value are left out.
pub(crate) fn properties(rows: impl IntoIterator<Item = (&'static str, Option<Cell>)>) -> String {
    lines(rows.into_iter().filter_map(|(property, value)| Some([name(property), value?])))
}

/// Lines without a header: short cells, and a last one that wraps.
pub(crate) fn lines<const N: usize>(rows: impl IntoIterator<Item = [Cell; N]>) -> String {
    let mut table = plain();
    table.add_rows(rows);
    // If stdout is not a terminal, a line is never wrapped, because `grep` works on lines.
    if table.is_tty() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_constraint(match index + 1 < N {
            true => ColumnConstraint::ContentWidth,
            false => ColumnConstraint::LowerBoundary(Width::Fixed(20)),
        });
    }
    finish(&mut table)
}

/// The name of the value next to it.
pub(crate) fn name(name: &str) -> Cell {
    Cell::new(name).add_attribute(Attribute::Bold)
}

/// Text that anybody could have written, on one line and without control characters.
pub(crate) fn text(text: &str) -> Cell {
    Cell::new(text::line(text))
}

/// A text in the colour of a task's status.
pub(crate) fn status(status: &str, text: impl ToString) -> Cell {
    let cell = Cell::new(text);
    match status.parse() {
        Ok(Status::Success) => cell.fg(Color::DarkGreen),
        Ok(Status::Failure) => cell.fg(Color::DarkRed),
        Ok(Status::Revoked) => cell.fg(Color::DarkMagenta),
        Ok(Status::Running) => cell.fg(Color::DarkCyan),
        Ok(_) => cell.fg(Color::DarkYellow),
        Err(_) => cell,
    }
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).enforce_styling();
    // Otherwise styled spaces at the end of a line could not be trimmed.
    table.style_text_only();
    table
}

fn finish(table: &mut Table) -> String {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index < last { 2 } else { 0 }));
    }
    table.trim_fmt()
}
