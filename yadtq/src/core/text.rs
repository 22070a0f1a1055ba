//! Texts of limited length, without control characters.

use std::fmt;

/// The text, with its end replaced by `...` if it has more than `max` bytes.
#[must_use]
pub(crate) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = max.saturating_sub(3);
        text.truncate((0..=end).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
        text.push_str("...");
        // What was cut off may be a thousand times as long.
        text.shrink_to_fit();
    }
    text
}

/// Shows a text that others have written within a line of a log: its control characters are escaped, so that it cannot begin a
/// line that looks like another entry.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => write!(f, "{}{}", &part[..part.len() - last.len_utf8()], last.escape_default())?,
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Whether the text can be part of a line of a log: it has no control characters.
#[must_use]
pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(cut("12345".to_owned(), 5), "12345");
        assert_eq!(cut("123456".to_owned(), 5), "12...");
        assert_eq!(cut("éééé".to_owned(), 6), "é...");
    }

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("", ""),
            ("order/17 é", "order/17 é"),
            ("a\nINFO b\u{1b}[2J", "a\\nINFO b\\u{1b}[2J"),
            ("\u{85}\r", "\\u{85}\\r"),
        ] {
            assert_eq!((Escaped(text).to_string().as_str(), is_plain(text)), (shown, text == shown));
        }
    }
}
