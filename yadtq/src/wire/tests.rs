//! The wire format is tested in three ways: what is written can be read back; no bytes make a reader panic; and the bytes of
//! every released version stay the same.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::{
    envelope::{self, Envelope, FollowUp, MAX_SEQ, Unreadable, follow_up, under},
    failure::{ErrorKind, Failure},
    record::{Record, TaskOptions},
    strange,
};
use crate::core::{priority::Priority, retry::Retry};

fn read(text: &str) -> Result<Envelope, Unreadable> {
    Envelope::read(&Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn three_fields_are_enough() {
    let task = read(r#"{"task-id":"d5750c0e-ed82","task":"add","args":[1,2]}"#).unwrap();
    assert_eq!((task.id.as_str(), &*task.task, task.args.as_str()), ("d5750c0e-ed82", "add", "[1,2]"));
    assert_eq!((task.seq, task.attempt, task.options), (1, 1, TaskOptions::default()));
    assert!(task.reply_to.is_none());
}

#[test]
fn a_priority_that_is_none_is_refused_by_name() {
    let refused = read(r#"{"task-id":"a","task":"t","args":[],"priority":"urgent"}"#).unwrap_err().to_string();
    assert!(refused.contains("there is no priority `urgent`; choose high, normal or low"), "{refused}");
}

#[test]
fn strange_numbers_stay_within_bounds() {
    let text = r#"{"task-id":"a","task":"t","args":[],"seq":0,"attempt":0,"timeout-ms":18446744073709551615}"#;
    let task = read(text).unwrap();
    assert_eq!((task.seq, task.attempt), (1, 1));
    assert!(task.options.timeout < Some(Duration::from_millis(1 << 36)), "timers take no more");
}

#[test]
fn a_seq_that_cannot_grow_is_refused() {
    let text = |seq: u64| format!(r#"{{"task-id":"a","task":"t","args":[],"seq":{seq}}}"#);
    assert_eq!(read(&text(MAX_SEQ)).unwrap().seq, MAX_SEQ);
    // As from `time.time_ns()`.
    for seq in [MAX_SEQ + 1, 1_732_800_000_000_000_000, u64::MAX] {
        assert!(matches!(read(&text(seq)), Err(Unreadable::Seq { .. })), "{seq}");
    }
}

#[test]
fn only_an_object_is_a_task() {
    let fields = r#"["a","t",[],1,1,null,null,null,null,null,null,null,"normal",null,null,null,null]"#;
    for text in [fields, &format!(" \n{fields}"), "[]"] {
        assert!(matches!(read(text), Err(Unreadable::NotAnObject)), "{text}");
    }
    assert_eq!(envelope::eta(b"[7]"), 0, "it is due at once, and becomes a dead letter");
    assert_eq!(envelope::eta(b" {\"eta\":7}"), 7);
}

#[test]
fn the_reason_why_a_record_is_no_task_is_short() {
    let long = "\u{7f}".repeat(200_000);
    let record = |more: &str| format!(r#"{{"task-id":"a","task":"t","args":[]{more}}}"#);
    let bad_seq = read(&record(&format!(r#","seq":"{long}""#))).unwrap_err();
    let bad_priority = read(&record(&format!(r#","priority":"{long}""#))).unwrap_err();
    let bad_queue = envelope::due(&record(&format!(r#","queue":"{long}""#)).into()).unwrap_err();
    for refused in [bad_seq, bad_priority, bad_queue] {
        let text = refused.to_string();
        assert!((20..5_000).contains(&text.len()), "{} bytes", text.len());
    }
    let error = format!(r#","last-error":{{"kind":"{long}","message":"{long}","attempt":1}}"#);
    let error = read(&record(&error)).unwrap().last_error.unwrap();
    assert!(error.message.len() <= Failure::MAX_MESSAGE && error.kind.as_str().len() <= Failure::MAX_KIND);
}

#[test]
fn the_key_of_a_delayed_record_names_its_task() {
    let of = |key: &'static str| envelope::of_delayed_key(key.as_bytes());
    assert_eq!(of("order/17/2"), Some(("order/17", 2)));
    assert_eq!(of("a/1"), Some(("a", 1)));
    for key in ["a", "a/", "a/+1", "a/x", "a/99999999999999999999", ""] {
        assert_eq!(of(key), None, "{key}");
    }
}

#[test]
fn a_record_is_rescheduled_with_all_its_fields() {
    let record = br#"{"task-id":"a","then":{"x":[1e3]},"task":"t","args":{"b": 1},"attempt":1}"#;
    let step = FollowUp {
        seq: 4,
        attempt: 2,
        eta: None,
        queue: "mail",
        priority: Priority::Low,
        limit_slot: Some(5),
        unknown_since: Some(6),
        error: None,
    };
    let next = follow_up(record, step).unwrap();
    let (task, text) = (Envelope::read(&next).unwrap(), std::str::from_utf8(&next).unwrap());
    assert_eq!((task.seq, task.attempt, task.args.as_str()), (4, 2, r#"{"b": 1}"#));
    assert!(text.contains(r#""then":{"x":[1e3]}"#), "{text}");
    assert_eq!((task.limit_slot, task.unknown_since), (Some(5), Some(6)));
    let step = FollowUp { seq: 5, limit_slot: None, unknown_since: None, ..step };
    let task = Envelope::read(&follow_up(&next, step).unwrap()).unwrap();
    assert_eq!(
        (task.limit_slot, task.unknown_since),
        (None, None),
        "limits have let it start once; that does not count for the next record"
    );
}

#[test]
fn a_record_becomes_one_of_another_task() {
    let record = br#"{"task-id":"a","then":{"x":[1e3]},"task":"t","args":[1],"unique":"k"}"#;
    let (other, long) = (
        under(record, "b\"").unwrap(),
        format!(r#"{{"task-id":"a","task":"t","args":[],"unique":"{}"}}"#, "k".repeat(257)),
    );
    let task = Envelope::read(&other).unwrap();
    assert_eq!((task.id.as_str(), task.args.as_str(), task.unique.as_deref()), ("b\"", "[1]", Some("k")));
    assert!(std::str::from_utf8(&other).unwrap().contains(r#""then":{"x":[1e3]}"#));
    assert_eq!(read(&long).unwrap().unique, None, "a hint is no reason to refuse a task");
}

#[test]
fn a_record_waits_and_goes_on_as_it_was() {
    let record = br#"{"task-id":"a","task":"t","args":[1],"ordering-key":"k","x":{"y":2}}"#;
    let error = r#"{"kind":"error","message":"no","attempt":1}"#;
    let step = FollowUp {
        seq: 2,
        attempt: 2,
        eta: Some(77),
        queue: "mail",
        priority: Priority::Low,
        limit_slot: None,
        unknown_since: None,
        error: Some(error),
    };
    let waiting = follow_up(record, step).unwrap();
    let task = Envelope::read(&waiting).unwrap();
    assert_eq!((task.eta, task.seq, envelope::eta(&waiting)), (Some(77), 2, 77));
    assert_eq!(task.last_error.map(|failure| failure.message.clone()).as_deref(), Some("no"));
    let due = envelope::due(&waiting).unwrap();
    assert_eq!((due.queue.as_str(), due.priority, &due.key[..]), ("mail", Priority::Low, &b"k"[..]));
    let task = Envelope::read(&due.record).unwrap();
    assert_eq!((task.eta, task.seq, task.attempt, task.args.as_str()), (None, 2, 2, "[1]"));
    assert!(std::str::from_utf8(&due.record).unwrap().contains(r#""x":{"y":2}"#));
    let smaller = envelope::without_error(&due.record).unwrap();
    assert!(Envelope::read(&smaller).unwrap().last_error.is_none());
    assert!(envelope::without_error(&smaller).is_none());
    assert!(envelope::due(&br#"{"task-id":"a","task":"t","args":[],"queue":"dead"}"#[..].into()).is_err());
    assert_eq!(envelope::eta(b"no json"), 0, "it is due at once, and becomes a dead letter");
}

/// Records that released versions wrote. Lines may be added, but none may be changed.
#[test]
fn records_of_released_versions_are_read() {
    let golden = include_str!("golden/records.jsonl");
    for line in golden.lines() {
        let expected: serde_json::Value = serde_json::from_str(line).unwrap();
        let task = read(expected["record"].as_str().unwrap()).unwrap();
        assert_eq!(task.id.as_str(), expected["id"], "{line}");
        assert_eq!(&*task.task, expected["task"], "{line}");
        assert_eq!(task.args.as_str(), expected["args"], "{line}");
        assert_eq!(task.args.params(), expected["params"].as_str(), "{line}");
        assert_eq!(serde_json::json!([task.seq, task.attempt]), expected["seq-attempt"], "{line}");
        let durations = [task.options.timeout, task.options.result_ttl].map(|time| time.map(|time| time.as_millis()));
        assert_eq!(serde_json::json!(durations), expected["timeout-ttl"], "{line}");
        assert_eq!(task.reply_to.as_deref(), expected["reply-to"].as_str(), "{line}");
        assert_eq!(task.unique.as_deref(), expected["unique"].as_str(), "{line}");
        assert_eq!(task.ordering_key.as_deref(), expected["ordering-key"].as_str(), "{line}");
        assert_eq!(task.priority.as_str(), expected["priority"].as_str().unwrap_or("normal"), "{line}");
    }
}

#[test]
fn this_version_writes_what_it_always_wrote() {
    let args = RawValue::from_string(r#"[1,"x"]"#.to_owned()).unwrap();
    let mut record = Record::new("id", "add", &args, &TaskOptions::default());
    assert_eq!(record.to_bytes(), r#"{"task-id":"id","task":"add","args":[1,"x"]}"#);
    let retry = Retry::new().max(7).base(Duration::from_secs(2)).cap(Duration::from_secs(60));
    let options = TaskOptions {
        retry,
        timeout: Some(Duration::from_secs(5)),
        soft_timeout: Some(Duration::from_secs(4)),
        result_ttl: Some(Duration::ZERO),
    };
    record = Record::new("id", "add", &args, &options);
    record.params = serde_json::from_str(r#"["a","b"]"#).unwrap();
    record.reply_to = Some("client".into());
    record.expires = Some(1_795_531_030_859);
    record.unique = Some("order-17".into());
    record.ordering_key = Some("customer-17".into());
    record.priority = Priority::High;
    record.eta = Some(1_795_531_030_858);
    record.queue = Some("mail".into());
    let all = concat!(
        r#"{"task-id":"id","task":"add","args":[1,"x"],"params":["a","b"],"reply-to":"client","timeout-ms":5000,"soft-timeout-ms":4000,"#,
        r#""result-ttl-ms":0,"expires":1795531030859,"unique":"order-17","ordering-key":"customer-17","priority":"high","retry":{"max":7,"base-ms":2000,"cap-ms":60000},"eta":1795531030858,"queue":"mail"}"#
    );
    assert_eq!(record.to_bytes(), all);
    let failure = Failure::new(ErrorKind::UnknownTask, "say \"what\"".to_owned(), 2);
    assert_eq!(failure.to_json(), r#"{"kind":"unknown-task","message":"say \"what\"","attempt":2}"#);
}

#[test]
fn long_errors_are_cut_at_a_character() {
    let failure = Failure::new(ErrorKind::Custom("é".repeat(200)), "é".repeat(Failure::MAX_MESSAGE), 1);
    assert!(failure.message.len() <= Failure::MAX_MESSAGE && failure.message.ends_with("..."));
    assert!(failure.kind.as_str().len() <= Failure::MAX_KIND);
}

prop_compose! {
    fn text()(text in ".{1,40}") -> String { text }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        id in text(), task in text(), reply in proptest::option::of(text()), timeout in proptest::option::of(1_u64..1 << 30),
        args in prop::collection::vec(any::<(i64, String)>(), 0..5), priority in prop::sample::select(&Priority::ALL),
        key in proptest::option::of(text()),
    ) {
        prop_assume!(id.len() <= 128);
        let args = serde_json::value::to_raw_value(&args).unwrap();
        let options = TaskOptions { timeout: timeout.map(Duration::from_millis), ..TaskOptions::default() };
        let record = Record {
            reply_to: reply.as_deref().map(Into::into),
            ordering_key: key.as_deref().map(Into::into),
            priority,
            ..Record::new(&id, &task, &args, &options)
        };
        let read = Envelope::read(&record.to_bytes()).unwrap();
        prop_assert_eq!(read.id.as_str(), id);
        prop_assert_eq!(&*read.task, task);
        prop_assert_eq!(read.args.as_str(), args.get());
        prop_assert_eq!(read.reply_to.as_deref(), reply.as_deref());
        prop_assert_eq!(read.options, options);
        prop_assert_eq!(read.priority, priority);
        prop_assert_eq!(read.ordering_key.as_deref(), key.as_deref());
    }

    /// Whatever can be read as a task can go on, wait, and become due, as the same task.
    #[test]
    fn every_record_that_is_read_can_be_written(record in strange::records(), eta in proptest::option::of(any::<u64>())) {
        let Ok(task) = Envelope::read(&record) else {
            prop_assert!(envelope::due(&record).is_err());
            return Ok(());
        };
        let same = |other: &Envelope| {
            (&other.id, &other.task, other.args.as_str(), other.args.params(), &other.ordering_key)
                == (&task.id, &task.task, task.args.as_str(), task.args.params(), &task.ordering_key)
        };
        let (seq, queue) = ((task.seq + 1).min(MAX_SEQ), "mail");
        let error = task.last_error.as_ref().map(|failure| failure.to_json());
        let error = error.as_deref();
        let (priority, limit_slot, unknown_since) = (Priority::Low, None, None);
        let step = FollowUp { seq, attempt: 7, eta, queue, priority, limit_slot, unknown_since, error };
        let next = follow_up(&record, step).unwrap();
        let read = Envelope::read(&next).unwrap();
        prop_assert!(same(&read));
        prop_assert_eq!((read.seq, read.attempt, read.eta.is_some()), (seq, 7, eta.is_some()));
        prop_assert_eq!(read.last_error, task.last_error.clone());
        if eta.is_some() {
            let due = envelope::due(&next).unwrap();
            prop_assert_eq!((due.queue.as_str(), due.priority), (queue, Priority::Low));
            prop_assert!(same(&Envelope::read(&due.record).unwrap()));
        }
        for other in [envelope::at(&record, None).unwrap(), envelope::without_wait(&record).unwrap()] {
            let read = Envelope::read(&other).unwrap();
            prop_assert!(same(&read) && read.eta.is_none() && read.seq == task.seq);
        }
        let other = Envelope::read(&under(&record, "b").unwrap()).unwrap();
        prop_assert_eq!(other.id.as_str(), "b");
        let key = envelope::delayed_key(&task.id, seq);
        prop_assert_eq!(envelope::of_delayed_key(&key), Some((task.id.as_str(), seq)));
    }

    /// Cut, changed or random bytes are read, or refused with a reason.
    #[test]
    fn no_bytes_make_a_reader_panic(
        mut bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            Just(br#"{"task-id":"a","task":"t","args":[1,{"b":"c"}],"seq":2,"reply-to":"r","timeout-ms":1}"#.to_vec()),
        ],
        change in any::<(prop::sample::Index, u8)>(), cut in any::<prop::sample::Index>(),
    ) {
        if !bytes.is_empty() {
            let at = change.0.index(bytes.len());
            bytes[at] = change.1;
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if let Err(refused) = Envelope::read(&Bytes::from(bytes)) {
            prop_assert!(!refused.to_string().is_empty());
        }
    }
}
