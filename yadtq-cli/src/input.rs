//! Reads a task's arguments from the command line.

use std::io::Read;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{failure::Failure, message, text};

/// Longest input from stdin, in bytes. By default workers accept no larger record.
const MAX_STDIN_BYTES: u64 = 8 * 1_024 * 1_024;

/// A task's arguments as JSON text: numbers are not rounded, fields are not reordered.
#[derive(Debug)]
pub(crate) enum Arguments {
    /// One value for each position.
    Each(Vec<Box<RawValue>>),
    /// One array or object with all arguments.
    Whole(Box<RawValue>),
}

impl Arguments {
    /// Each word is one argument: a JSON value, or else a string.
    pub(crate) fn from_words(words: &[String]) -> Result<Self, Failure> {
        words.iter().map(|word| from_word(word)).collect::<Result<_, _>>().map(Self::Each)
    }

    /// All arguments at once: from the text, or from stdin if the text is `-`.
    pub(crate) fn from_json(text: &str) -> Result<Self, Failure> {
        let whole = match text {
            "-" => parse(&stdin()?, "stdin")?,
            text => parse(text, "--args-json")?,
        };
        Ok(Self::Whole(whole))
    }
}

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Each(values) => values.serialize(serializer),
            Self::Whole(value) => value.serialize(serializer),
        }
    }
}

fn from_word(word: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str(word).or_else(|error| {
        if word.starts_with(['[', '{', '"']) {
            let word = text::cut(word, 60, "cut in this message only");
            message::warning(&format!("`{word}` is not JSON ({error}) and is sent as a string"));
        }
        serde_json::value::to_raw_value(word).map_err(|error| Failure::Input(format!("`{word}`: {error}")))
    })
}

fn parse(json: &str, source: &str) -> Result<Box<RawValue>, Failure> {
    let value: Box<RawValue> =
        serde_json::from_str(json).map_err(|error| Failure::Input(format!("{source} is not JSON: {error}")))?;
    if value.get().starts_with(['[', '{']) {
        return Ok(value);
    }
    Err(Failure::Input(format!(
        "{source} must be an array (arguments by position) or an object (by name), such as [1, 2] or {{\"a\": 1}}"
    )))
}

fn stdin() -> Result<String, Failure> {
    let mut input = String::new();
    let unreadable = |error| Failure::Input(format!("cannot read stdin as UTF-8 text: {error}"));
    let read = std::io::stdin().take(MAX_STDIN_BYTES + 1).read_to_string(&mut input).map_err(unreadable)?;
    if read as u64 > MAX_STDIN_BYTES {
        return Err(Failure::Input(format!(
            "stdin has more than {MAX_STDIN_BYTES} bytes, more than a worker accepts; send a reference to the data instead"
        )));
    }
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        serde_json::to_string(&Arguments::from_words(&words).unwrap()).unwrap()
    }

    #[test]
    fn json_stays_as_it_was_typed() {
        assert_eq!(sent(&["1", "-2.50", "true", "null"]), "[1,-2.50,true,null]");
        assert_eq!(sent(&["123456789012345678901234567890", "1e999"]), "[123456789012345678901234567890,1e999]");
        assert_eq!(sent(&[r#"{"b":1,"a":[2]}"#, r#""1""#]), r#"[{"b":1,"a":[2]},"1"]"#);
    }

    #[test]
    fn anything_else_is_a_string() {
        assert_eq!(sent(&["hello", "", "007", "NaN", "{a: 1}"]), r#"["hello","","007","NaN","{a: 1}"]"#);
        assert_eq!(sent(&[]), "[]");
    }

    #[test]
    fn the_whole_must_be_an_array_or_an_object() {
        assert!(Arguments::from_json(r#" {"a": 1} "#).is_ok());
        for (text, said) in [("[1,", "--args-json is not JSON"), ("3", "must be an array")] {
            let error = Arguments::from_json(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
