//! Tables for people: columns two spaces apart, no lines, so that what is shown can also be copied and cut.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING,
};
use yadtq::Status;

/// A column of a list.
pub(crate) struct Column {
    title: &'static str,
    alignment: CellAlignment,
}

impl Column {
    /// Words, from the left.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Left }
    }

    /// Numbers, with their ones under each other.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Right }
    }
}

/// A list: one row a thing, one column a property. A row is one line, however narrow the terminal: what is long
/// belongs in the last column.
pub(crate) fn list(columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut table = plain();
    table.set_header(columns.iter().map(|column| name(column.title)));
    table.add_rows(rows);
    for (column, made) in columns.iter().zip(table.column_iter_mut()) {
        made.set_cell_alignment(column.alignment);
    }
    finish(&mut table)
}

/// Lines of a few words and a text, which wraps.
pub(crate) fn lines<const N: usize>(rows: impl IntoIterator<Item = [Cell; N]>) -> String {
    let mut table = plain();
    table.add_rows(rows);
    // Elsewhere a line stays one, whatever its length: `grep` sees lines.
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

/// The name of what stands beside it.
pub(crate) fn name(name: &str) -> Cell {
    Cell::new(name).add_attribute(Attribute::Bold)
}

/// A status in its colour.
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
    // So that the spaces at the end of a line can be trimmed.
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
