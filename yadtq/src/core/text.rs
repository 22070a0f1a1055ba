//! Texts of limited length, without control characters.

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
}
