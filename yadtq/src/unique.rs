//! What a call says of its uniqueness: a key that the sender chose, or its arguments.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    client::LONGEST_TTL,
    core::unique::{MAX_KEY, UniqueKey},
    error::Error,
};

const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Arguments are looked into so deep; below, they are taken as they are written.
const DEPTH: usize = 100;

/// Until when no second task is made of a call.
#[derive(Clone, Debug)]
pub(crate) struct Unique {
    /// `None`: the arguments are the key.
    pub(crate) key: Option<String>,
    pub(crate) ttl: Duration,
}

impl Unique {
    /// The key and its life in ms, once it is checked.
    pub(crate) fn key(self, task: &str, args: &RawValue) -> Result<(UniqueKey, u64), Error> {
        if self.ttl < SHORTEST_TTL || self.ttl > LONGEST_TTL {
            return Err(Error::config("unique", "its time must be 1 s to 365 days"));
        }
        let key = self.key.unwrap_or_else(|| of_arguments(args));
        if key.is_empty() || key.len() > MAX_KEY {
            let problem =
                format!("a key has 1 to {MAX_KEY} bytes, this one has {}; use a hash of what is longer", key.len());
            return Err(Error::config("unique", problem));
        }
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        Ok((UniqueKey { task: task.into(), key: key.into() }, ttl_ms))
    }
}

/// `args:` and the SHA-256 of the arguments in hex: as JSON without spaces, the keys of objects in order.
pub(crate) fn of_arguments(args: &RawValue) -> String {
    let mut text = String::with_capacity(args.get().len());
    write(args.get(), DEPTH, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    let mut key = String::from("args:");
    for byte in &*digest {
        key.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
        key.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
    }
    key
}

/// Writes JSON in one of the ways that it can be written. Numbers stay as they are: no type here holds all of them.
fn write(json: &str, depth: usize, text: &mut String) {
    match json.as_bytes().first() {
        Some(b'{') if depth > 0 => {
            // It is JSON: whoever made the `RawValue` has seen to that.
            let fields = serde_json::from_str::<BTreeMap<Arc<str>, &RawValue>>(json).unwrap_or_default();
            text.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                text.push_str(if i > 0 { "," } else { "" });
                text.push_str(&serde_json::Value::from(&**name).to_string());
                text.push(':');
                write(value.get(), depth - 1, text);
            }
            text.push('}');
        }
        Some(b'[') if depth > 0 => {
            let items = serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default();
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                text.push_str(if i > 0 { "," } else { "" });
                write(item.get(), depth - 1, text);
            }
            text.push(']');
        }
        _ => text.push_str(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(args: &str) -> String {
        of_arguments(&RawValue::from_string(args.to_owned()).unwrap())
    }

    /// Senders of all versions have to agree: these never change.
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

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let args = RawValue::from_string("[]".to_owned()).unwrap();
        let hour = Duration::from_secs(3_600);
        let check = |key: &str, ttl| Unique { key: Some(key.to_owned()), ttl }.key("add", &args);
        assert!(check("k", hour).is_ok() && check(&"k".repeat(256), hour).is_ok());
        for refused in
            [check("", hour), check(&"k".repeat(257), hour), check("k", hour * 24 * 366), check("k", hour / 3_601)]
        {
            assert!(matches!(&refused, Err(Error::Config { what, .. }) if what == "unique"), "{refused:?}");
        }
    }
}
