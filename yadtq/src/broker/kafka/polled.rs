//! A producer whose delivery reports come from a thread of its own.
//!
//! rdkafka's `ThreadedProducer` does the same, but polls for 100 ms at a time. And since a poll rounds what is left of its time down to
//! whole milliseconds, the last one is spent spinning: 1 % of a core, with nothing to do.

use std::{io, ops::Deref, sync::Arc, time::Duration};

use rdkafka::producer::{BaseProducer, ProducerContext};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::blocking::spawn_thread;

/// The length of one poll. After a drop, librdkafka's client lives on for as long at most.
const POLL_TIME: Duration = Duration::from_secs(2);

/// Dropped by its thread, because that takes a while: so the thread's reference has to be the last one.
pub(super) struct PolledProducer<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    /// Ends the thread.
    _end: DropGuard,
}

impl<C: ProducerContext + 'static> PolledProducer<C> {
    pub(super) fn new(producer: BaseProducer<C>) -> io::Result<Self> {
        let (producer, end) = (Arc::new(producer), CancellationToken::new());
        let (polled, ends) = (Arc::clone(&producer), end.clone());
        spawn_thread(move || {
            while !ends.is_cancelled() {
                polled.poll(POLL_TIME);
            }
        })?;
        Ok(Self { producer, _end: end.drop_guard() })
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}
