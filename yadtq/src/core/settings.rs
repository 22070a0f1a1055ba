//! Settings in one text, as variables of the environment have them.

use super::secret::Secret;

/// Reads `key=value,key=value`. A part without `=` belongs to the value before it, so `debug=broker,topic,client.id=shop` has two
/// settings. `\,` is a comma of the value, and `\\` a backslash. An error says what is wrong, without the text.
pub(crate) fn read(text: &str) -> Result<Vec<(String, Secret)>, String> {
    let mut settings: Vec<(String, String)> = Vec::new();
    for part in split_unescaped(text).into_iter().filter(|part| !part.trim().is_empty()) {
        match (part.split_once('='), settings.last_mut()) {
            (Some((key, value)), _) => settings.push((key.trim().to_owned(), value.trim().to_owned())),
            (None, Some((_, value))) => *value = format!("{value},{}", part.trim()),
            (None, None) => return Err("must be `key=value,key=value`, and its first part has no `=`".to_owned()),
        }
    }
    Ok(settings.into_iter().map(|(key, value)| (key, Secret::new(value))).collect())
}

/// The parts between commas, with `\,` and `\\` read.
fn split_unescaped(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut chars) = (Vec::new(), String::new(), text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '\\' => part.push(chars.next_if(|next| matches!(next, ',' | '\\')).unwrap_or('\\')),
            ',' => parts.push(std::mem::take(&mut part)),
            other => part.push(other),
        }
    }
    parts.push(part);
    parts
}
