//! Columns for people, and colours where a terminal shows them.

use anstyle::{AnsiColor, Style};

use crate::model::Phase;

/// The head of a table.
const HEAD: Style = Style::new().bold();
/// What matters less.
const FAINT: Style = Style::new().dimmed();

/// What stands in a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    /// In a table's first line.
    pub(super) fn head(text: &str) -> Self {
        Self { text: text.to_owned(), style: HEAD }
    }

    /// Something that is not looked for first.
    pub(super) fn faint(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: FAINT }
    }

    pub(super) fn coloured(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// The colour of one of these.
pub(super) const GOOD: Style = colour(AnsiColor::Green);
pub(super) const DUBIOUS: Style = colour(AnsiColor::Yellow);
pub(super) const BAD: Style = colour(AnsiColor::Red);
const COLD: Style = colour(AnsiColor::Cyan);

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(colour)))
}

/// The colour of a phase.
pub(super) fn style_of(phase: Phase) -> Style {
    match phase {
        Phase::Running => GOOD,
        Phase::Frozen => COLD,
        Phase::Failed => BAD,
        Phase::Starting | Phase::Freezing | Phase::Removing | Phase::Removed => DUBIOUS,
    }
}

/// The rows as lines, each cell as wide as the widest of its column. Styles are written as a
/// terminal wants them; `anstream` takes them away where there is none, or where `NO_COLOR` asks.
pub(super) fn table<const COLUMNS: usize>(rows: impl Iterator<Item = [Cell; COLUMNS]>) -> String {
    let rows: Vec<_> = rows.collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line<const COLUMNS: usize>(row: &[Cell; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut line = String::new();
    let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or_default();
    for (number, (Cell { text, style }, width)) in row.iter().zip(widths).enumerate() {
        if number > last {
            break;
        }
        line.push_str(&format!("{style}{text}{style:#}"));
        if number < last {
            let space = width - text.chars().count() + 2;
            line.extend(std::iter::repeat_n(' ', space));
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["a", "long", "x"], ["ääää", "b", ""]];
        let rows = rows.into_iter().map(|row| row.map(Cell::new));
        assert_eq!(table(rows), "a     long  x\nääää  b\n");
    }

    #[test]
    fn styles_take_no_room() {
        let row = [Cell::coloured("on", GOOD), Cell::new("x")];
        let table = table([row, ["long".into(), "y".into()]].into_iter());
        assert_eq!(table, "\u{1b}[32mon\u{1b}[0m    x\nlong  y\n");
    }
}
