//! Collects polled records into events.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};

use super::super::{Event, Incoming};
use crate::wire::Headers;

/// The events of one poll.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// Number of records in the events.
    pub(super) records: usize,
    /// Their size in bytes.
    pub(super) bytes: usize,
}

impl Batch {
    /// Adds the end of a partition.
    pub(super) fn ended(&mut self, partition: i32) {
        match self.events.last_mut() {
            Some(Event::EndReached(partitions)) => partitions.push(partition),
            _ => self.events.push(Event::EndReached(vec![partition])),
        }
    }

    /// Adds a record.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>) {
        let record = incoming(message);
        self.records += 1;
        self.bytes += record.size();
        match self.events.last_mut() {
            Some(Event::Records(records)) => records.push(record),
            _ => self.events.push(Event::Records(vec![record])),
        }
    }
}

pub(super) fn incoming(message: &BorrowedMessage<'_>) -> Incoming {
    Incoming {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
        headers: headers(message),
    }
}

/// The headers, without those whose name is not UTF-8: rdkafka panics when it is asked for one of these.
fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(headers) = message.headers() else { return Headers::new() };
    let header = |index| {
        let header = catch_unwind(AssertUnwindSafe(|| headers.get(index))).ok()?;
        Some((header.key.to_owned(), header.value.map(Bytes::copy_from_slice).unwrap_or_default()))
    };
    (0..headers.count()).filter_map(header).collect()
}
