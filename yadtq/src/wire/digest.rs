//! Arguments in canonical form (RFC 8785), and their digest: the same for all ways to write the same JSON, in every version and in every
//! language.
//!
//! One thing goes beyond the RFC, which knows no numbers but doubles: integers beyond 2^53 keep all their digits. Else two ids that
//! are neighbours would be one.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The deepest level that is written in canonical form. What is nested deeper stays as it is written.
const MAX_CANONICAL_DEPTH: usize = 100;
/// The largest integer up to which all integers are doubles.
const MAX_EXACT: u64 = 1 << 53;

/// `args:` and the SHA-256 of the arguments in hex. They are hashed in canonical form.
#[must_use]
pub(crate) fn of_arguments(args: &RawValue) -> String {
    let digest = Sha256::digest(canonical(args).as_bytes());
    let mut key = String::from("args:");
    for byte in &*digest {
        key.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
        key.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
    }
    key
}

/// A value in canonical form.
#[must_use]
pub(crate) fn canonical(value: &RawValue) -> String {
    let mut text = String::with_capacity(value.get().len());
    write(value.get(), MAX_CANONICAL_DEPTH, &mut text);
    text
}

fn write(json: &str, depth: usize, text: &mut String) {
    let is_written = match json.as_bytes().first() {
        Some(b'{') if depth > 0 => write_object(json, depth, text),
        Some(b'[') if depth > 0 => write_array(json, depth, text),
        Some(b'"') => write_scalar(json, text),
        Some(b'-' | b'0'..=b'9') => !is_large_integer(json) && write_scalar(json, text),
        _ => false,
    };
    // What no Rust type holds is compared as it is written: half of a surrogate pair, a number out of range.
    if !is_written {
        text.push_str(json);
    }
}

fn write_object(json: &str, depth: usize, text: &mut String) -> bool {
    let Ok(fields) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(json) else { return false };
    let mut fields: Vec<_> = fields.into_iter().collect();
    fields.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    text.push('{');
    for (i, (name, value)) in fields.iter().enumerate() {
        text.push_str(if i > 0 { "," } else { "" });
        text.push_str(&serde_json::Value::from(&**name).to_string());
        text.push(':');
        write(value.get(), depth - 1, text);
    }
    text.push('}');
    true
}

fn write_array(json: &str, depth: usize, text: &mut String) -> bool {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) else { return false };
    text.push('[');
    for (i, item) in items.iter().enumerate() {
        text.push_str(if i > 0 { "," } else { "" });
        write(item.get(), depth - 1, text);
    }
    text.push(']');
    true
}

fn write_scalar(json: &str, text: &mut String) -> bool {
    let Ok(scalar) = serde_json_canonicalizer::pipe(json) else { return false };
    text.push_str(&scalar);
    true
}

fn is_large_integer(json: &str) -> bool {
    let digits = json.trim_start_matches('-');
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u64>().map_or(true, |number| number > MAX_EXACT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hashed(args: &str) -> String {
        of_arguments(&RawValue::from_string(args.to_owned()).unwrap())
    }

    /// Senders of all versions must make the same key, so it never changes.
    #[test]
    fn the_key_of_arguments_stays_as_it_is() {
        let of_one_and_two = "args:49a64717d5d4cb19952e6eac2946415cf6879adacf9908e7d872332d32c6e684";
        assert_eq!(hashed("[1,2]"), of_one_and_two);
    }

    #[test]
    fn the_way_it_is_written_does_not_matter_and_what_it_says_does() {
        let written = r#"[{"b":[1,{"y":null,"x":"a b"}],"a\"":1.50}]"#;
        let otherwise = "[ {\"a\\\"\" : 1.50,\n\"b\":[1, {\"x\":\"a b\",\"y\":null}]} ]";
        assert_eq!(hashed(written), hashed(otherwise));
        let different = [
            "[]",
            "{}",
            "[[]]",
            "[1]",
            "[\"1\"]",
            "[1,2]",
            "[2,1]",
            "[12]",
            "[18446744073709551616]",
            "[18446744073709551617]",
        ];
        let keys = different.iter().map(|args| hashed(args)).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(keys.len(), different.len());
        let deep = |end: &str| format!("{}{end}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert_ne!(hashed(&deep("1")), hashed(&deep("2")));
    }

    fn written(json: &str) -> String {
        canonical(&RawValue::from_string(json.to_owned()).unwrap())
    }

    /// The examples of the RFC, sections 3.2.2 to 3.2.3 and appendix B.
    #[test]
    fn the_form_is_that_of_rfc_8785() {
        let example = r#"{ "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false] }"#;
        let form = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
            \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(written(example), form);
        let by_utf16 = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        assert_eq!(
            written(by_utf16),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
        for (number, form) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("1e21", "1e+21"),
            ("1E2", "100"),
            ("5e-324", "5e-324"),
            ("9007199254740992", "9007199254740992"),
            ("295147905179352830000.0", "295147905179352830000"),
        ] {
            assert_eq!(written(number), form);
        }
    }

    #[test]
    fn spellings_of_one_value_are_one_and_neighbouring_ids_are_two() {
        assert_eq!(written(r#""M\u00fcller""#), written("\"M\u{fc}ller\""));
        assert_eq!(hashed("[1.0]"), hashed("[1]"));
        for id in ["9007199254740993", "-9007199254740993", "18446744073709551617", "1e400", "\"\\ud800\""] {
            assert_eq!(written(id), id);
        }
        assert_ne!(hashed(r#"[{"\ud800":1}]"#), hashed("[{}]"));
    }
}
