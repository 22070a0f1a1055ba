//! Orders to all workers, as records of the control topic.
//!
//! All are in its first partition, whatever their key, so that they have an order. A key has what an order is about, and so
//! compaction keeps the latest one. A record without a value takes an order back.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{broker::Outgoing, core::orders::Order};

/// The partition that has all orders.
pub const PARTITION: i32 = 0;

/// The record of an order.
#[must_use]
pub fn record(topic: Arc<str>, order: &Order) -> Outgoing {
    let value = serde_json::to_vec(order).expect("strings and numbers are always JSON").into();
    Outgoing { topic, key: key(order), value, partition: Some(PARTITION), headers: Vec::new() }
}

/// Reads a record; `None`: it is something else, or of a later version.
#[must_use]
pub fn read(key: &[u8], value: &[u8]) -> Option<Order> {
    if !value.is_empty() {
        return serde_json::from_slice(value).ok();
    }
    let (about, name) = std::str::from_utf8(key).ok()?.split_once('/')?;
    let (name, at) = (name.to_owned(), 0);
    match about {
        "queue" => Some(Order::Resume { queue: name, at }),
        "purge" => Some(Order::Purge { queue: name, at, below: BTreeMap::new() }),
        "task" => Some(Order::Enable { task: name, at }),
        _ => None,
    }
}

fn key(order: &Order) -> Bytes {
    match order {
        Order::Pause { queue, .. } | Order::Resume { queue, .. } => format!("queue/{queue}"),
        Order::Purge { queue, .. } => format!("purge/{queue}"),
        Order::Disable { task, .. } | Order::Enable { task, .. } => format!("task/{task}"),
    }
    .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::{orders::Disabled, priority::Priority};

    #[test]
    fn released_bytes_are_read_as_they_were_meant() {
        let (queue, task, at) = ("mail".to_owned(), "send_email".to_owned(), 1_700_000_000_000);
        let below = [(Priority::High, vec![(0, 7)]), (Priority::Normal, vec![(0, 17), (1, 0)])].into();
        let golden = [
            (
                Order::Pause { queue: queue.clone(), at },
                "queue/mail",
                r#"{"order":"pause","queue":"mail","at":1700000000000}"#,
            ),
            (
                Order::Resume { queue: queue.clone(), at },
                "queue/mail",
                r#"{"order":"resume","queue":"mail","at":1700000000000}"#,
            ),
            (
                Order::Purge { queue, at, below },
                "purge/mail",
                r#"{"order":"purge","queue":"mail","at":1700000000000,"below":{"high":[[0,7]],"normal":[[0,17],[1,0]]}}"#,
            ),
            (
                Order::Disable { task: task.clone(), at, then: Disabled::Wait },
                "task/send_email",
                r#"{"order":"disable","task":"send_email","at":1700000000000,"then":"wait"}"#,
            ),
            (
                Order::Enable { task, at },
                "task/send_email",
                r#"{"order":"enable","task":"send_email","at":1700000000000}"#,
            ),
        ];
        for (order, key, value) in golden {
            let record = record("yadtq.control".into(), &order);
            assert_eq!((&record.key[..], &record.value[..]), (key.as_bytes(), value.as_bytes()));
            assert_eq!(record.partition, Some(0));
            assert_eq!(read(key.as_bytes(), value.as_bytes()), Some(order));
        }
    }

    #[test]
    fn a_deletion_takes_an_order_back() {
        assert_eq!(read(b"queue/mail", b""), Some(Order::Resume { queue: "mail".into(), at: 0 }));
        assert_eq!(read(b"task/a/b", b""), Some(Order::Enable { task: "a/b".into(), at: 0 }));
        let forgotten = Order::Purge { queue: "mail".into(), at: 0, below: BTreeMap::new() };
        assert_eq!(read(b"purge/mail", b""), Some(forgotten));
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for (key, value) in [
            ("queue/mail", "{}"),
            ("queue/mail", r#"{"order":"drown","queue":"mail","at":1}"#),
            ("pond/mail", ""),
            ("", ""),
            ("queue/mail", "\u{0}"),
        ] {
            assert_eq!(read(key.as_bytes(), value.as_bytes()), None, "{key} {value}");
        }
    }
}
