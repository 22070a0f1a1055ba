//! Makes text from others safe for a terminal.
//!
//! Anybody who can write to Kafka or Redis chooses names, hosts and errors. A terminal would obey the control
//! characters in them, and the characters that change the direction of text could make a line look like another one.

/// The text on one line, without control characters.
pub(crate) fn line(text: &str) -> String {
    clean(text, |_| false)
}

/// The text without control characters other than line breaks.
pub(crate) fn lines(text: &str) -> String {
    clean(text, |c| c == '\n')
}

/// At most `max` characters. If the text is longer, its length in bytes and `rest` follow.
pub(crate) fn cut(text: &str, max: usize, rest: &str) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}… ({} bytes; {rest})", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

fn clean(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() || is_format(c)) && !keep(c) {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

/// Whether the character changes the direction of text, or breaks a line.
fn is_format(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(line("\u{1b}[31mred\u{9b}\r\nü"), r"\u{1b}[31mred\u{9b}\r\nü");
        assert_eq!(line("a\u{202e}b\u{2067}c\u{2028}"), r"a\u{202e}b\u{2067}c\u{2028}");
        assert_eq!(lines("one\ntwo\t"), "one\ntwo\\t");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("üüü", 3, "more"), "üüü");
        assert_eq!(cut("üüü", 2, "more"), "üü… (6 bytes; more)");
    }
}
