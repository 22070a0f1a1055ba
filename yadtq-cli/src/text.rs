//! Makes foreign text fit for a terminal.
//!
//! Names, hosts and errors come from whoever can write to Kafka or Redis. A terminal would obey the control
//! characters in them.

/// The text on one line, without control characters.
pub(crate) fn line(text: &str) -> String {
    clean(text, |_| false)
}

/// The text without control characters, its line breaks kept.
pub(crate) fn lines(text: &str) -> String {
    clean(text, |c| c == '\n')
}

/// At most so many characters, with what was cut told.
pub(crate) fn cut(text: &str, max: usize, rest: &str) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}… ({} bytes; {rest})", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

fn clean(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !keep(c) {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(line("\u{1b}[31mred\u{9b}\r\nü"), r"\u{1b}[31mred\u{9b}\r\nü");
        assert_eq!(lines("one\ntwo\t"), "one\ntwo\\t");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("üüü", 3, "more"), "üüü");
        assert_eq!(cut("üüü", 2, "more"), "üü… (6 bytes; more)");
    }
}
