//! Records as no client of ours writes them, for tests of what becomes of every record that can be read.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::envelope::{MAX_NUMBER, MAX_SEQ};

/// A field's name and its value, both as JSON text.
type Field = (String, String);

fn text(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn field(name: &'static str, values: Vec<String>) -> impl Strategy<Value = Option<Field>> {
    // Every name may be written with an escape.
    let name = select(vec![text(name), text(name).replacen('a', "\\u0061", 1)]);
    option::weighted(0.3, (name, select(values)))
}

fn required(name: &'static str, values: Vec<String>) -> impl Strategy<Value = Option<Field>> {
    select(values).prop_map(move |value| Some((text(name), value)))
}

fn numbers() -> Vec<String> {
    [0, 1, 2, MAX_SEQ - 1, MAX_SEQ, MAX_NUMBER, u64::MAX].map(|number| number.to_string()).to_vec()
}

fn fields() -> impl Strategy<Value = Vec<Option<Field>>> {
    let deep = format!("[{}1{}]", "[".repeat(300), "]".repeat(300));
    let args = ["[]", "{}", " [ 1e999 , -0 ] ", r#"{"a":1,"a":2}"#, r#"["\ud800"]"#, &deep].map(str::to_owned);
    let long = text(&"\u{7f}é".repeat(5_000));
    let error = format!(r#"{{"kind":{long},"message":{long},"attempt":1}}"#);
    let texts = |more: &[&str]| ["", "k", "é\u{0}\n\"", &"k".repeat(300)].iter().chain(more).map(|t| text(t)).collect();
    let known = (
        required("task-id", vec![text("a"), text("order/17"), text("}{ä\n\0"), text(&"x".repeat(128))]),
        required("task", vec![text("add"), text(""), text("my task\n")]),
        required("args", args.to_vec()),
        field("seq", numbers()),
        field("attempt", vec!["0".to_owned(), "2".to_owned(), u32::MAX.to_string(), "null".to_owned()]),
        field("eta", numbers()),
        field("expires", numbers()),
        field("limit-slot", numbers()),
        field("result-ttl-ms", numbers()),
        field("last-error", vec![error, r#"["kind","message",1]"#.to_owned(), "null".to_owned()]),
    );
    let hints = (
        field("queue", vec![text("mail"), text("dead"), long, "5".to_owned(), "null".to_owned()]),
        field("priority", ["high", "normal", "low"].map(text).to_vec()),
        field("retry", [r#"{"max":4294967295,"base-ms":0}"#, "[3,1,2]", "{}", "null"].map(str::to_owned).to_vec()),
        field("unique", texts(&[])),
        field("ordering-key", texts(&["order/17"])),
        field("reply-to", texts(&["client"])),
        field("params", [r#"["a","\ud800"]"#, r#"["a"]"#, "{}", "7", "null"].map(str::to_owned).to_vec()),
        vec(field("x", vec!["1".to_owned(), deep, r#"{"\ud800":"\udfff"}"#.to_owned()]), 0..3),
    );
    (known, hints).prop_map(|(known, hints)| {
        let (a, b, c, d, e, f, g, h, i, j) = known;
        let (k, l, m, n, o, p, q, unknown) = hints;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q].into_iter().chain(unknown).collect()
    })
}

/// Most of them are tasks.
pub(crate) fn records() -> impl Strategy<Value = Bytes> {
    let object = (fields().prop_shuffle(), select(vec!["", " ", "\r\n\t"])).prop_map(|(fields, space)| {
        let fields = fields.into_iter().flatten().map(|(name, value)| format!("{space}{name}{space}:{value}"));
        format!("{space}{{{}{space}}}{space}", fields.collect::<Vec<_>>().join(",")).into_bytes()
    });
    let array = fields().prop_map(|fields| {
        let values = fields.into_iter().take(16).map(|field| field.map_or("null".to_owned(), |(_, value)| value));
        format!(" [{}]", values.collect::<Vec<_>>().join(",")).into_bytes()
    });
    let broken = (fields(), any::<(prop::sample::Index, u8)>()).prop_map(|(fields, (at, byte))| {
        let fields = fields.into_iter().flatten().map(|(name, value)| format!("{name}:{value}"));
        let mut bytes = format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    prop_oneof![6 => object, 1 => array, 2 => broken].prop_map(Bytes::from)
}
