//! Sends records and waits for their acknowledgements.
//!
//! A publish of many records enqueues all of them and waits once. After a fatal error (librdkafka can no longer promise
//! that no record is stored twice or out of order) the client is replaced; the records in flight are answered with an
//! error, as after any other failure.
//!
//! librdkafka assumes that Kafka has a record when Kafka has acknowledged a later one of the same partition. But Kafka
//! accepts a later record alone while it knows nothing of this producer yet: this was seen when the first batches came
//! before a new partition had a leader. librdkafka reports such a record as acknowledged, but without an offset. It is
//! sent again, because a record that is stored twice does no harm, while a lost one does.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    client::Client,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tracing::error;

use super::{super::Outgoing, connection::ConnectionListener, polled::PolledProducer};

type NativeProducer = PolledProducer<Context>;

/// How long to wait for delivery reports after the deadline: librdkafka looks for expired records once a second.
const DELIVERY_REPORT_GRACE: Duration = Duration::from_secs(2);
/// Stands for a record that librdkafka reported as acknowledged, but without an offset.
const UNCONFIRMED: Code = Code::NoOffset;
/// Time before a record is enqueued again after librdkafka's queue was full.
const QUEUE_FULL_RETRY_DELAY: Duration = Duration::from_millis(5);
/// Time to wait after the client could not be rebuilt.
const REBUILD_RETRY_DELAY: Duration = Duration::from_millis(500);

pub(super) struct Producer {
    config: ClientConfig,
    listener: ConnectionListener,
    current: RwLock<Arc<NativeProducer>>,
}

impl Producer {
    pub(super) fn new(config: ClientConfig, listener: ConnectionListener) -> KafkaResult<Self> {
        let current = RwLock::new(start(&config, &listener)?);
        Ok(Self { config, listener, current })
    }

    /// Calls `ask` with the client, for requests to the cluster.
    pub(super) fn with_client<T>(&self, ask: impl FnOnce(&Client<Context>) -> T) -> T {
        ask(self.current().client())
    }

    /// Sends records in order. Their topics must exist. Returns one answer per record, in the same order, at most
    /// [`DELIVERY_REPORT_GRACE`] after the deadline.
    pub(super) async fn send(&self, records: &[&Outgoing], deadline: Instant) -> Vec<Result<(), Code>> {
        let mut answers = self.send_once(records, deadline).await;
        while Instant::now() < deadline {
            let unconfirmed: Vec<_> = (0..records.len()).filter(|&index| answers[index] == Err(UNCONFIRMED)).collect();
            if unconfirmed.is_empty() {
                break;
            }
            let again: Vec<_> = unconfirmed.iter().map(|&index| records[index]).collect();
            for (index, answer) in unconfirmed.into_iter().zip(self.send_once(&again, deadline).await) {
                answers[index] = answer;
            }
        }
        answers
    }

    async fn send_once(&self, records: &[&Outgoing], deadline: Instant) -> Vec<Result<(), Code>> {
        let reports = Arc::new(DeliveryReports::new(records.len()));
        for (index, record) in records.iter().enumerate() {
            let ticket = Box::new(Ticket { reports: Arc::clone(&reports), index });
            self.enqueue(record, ticket, deadline).await;
        }
        // librdkafka reports every record by itself. The timeout is for a client that was dropped, and for a call that
        // began late: librdkafka counts its own timeout from the send.
        let _ = timeout_at(deadline + DELIVERY_REPORT_GRACE, reports.complete()).await;
        reports.take()
    }

    async fn enqueue(&self, record: &Outgoing, ticket: Box<Ticket>, deadline: Instant) {
        let mut base = BaseRecord::with_opaque_to(&record.topic, ticket).key(&record.key[..]);
        if !record.value.is_empty() {
            base = base.payload(&record.value[..]);
        }
        if let Some(partition) = record.partition {
            base = base.partition(partition);
        }
        if !record.headers.is_empty() {
            base = base.headers(headers(record));
        }
        loop {
            let producer = self.current();
            let (code, back) = match producer.send(base) {
                Ok(()) => return,
                Err((error, back)) => (error.rdkafka_error_code().unwrap_or(Code::InvalidArgument), back),
            };
            base = back;
            match code {
                Code::QueueFull if Instant::now() < deadline => sleep(QUEUE_FULL_RETRY_DELAY).await,
                Code::Fatal if Instant::now() < deadline => self.replace(&producer).await,
                code => return base.delivery_opaque.report(Err(code)),
            }
        }
    }

    /// Puts a new client in the place of a broken one, unless another call has done so.
    async fn replace(&self, broken: &Arc<NativeProducer>) {
        let reason = broken.client().fatal_error().map_or_else(String::new, |(_, reason)| reason);
        let replaced = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&current, broken) {
                return;
            }
            start(&self.config, &self.listener).map(|new| *current = new)
        };
        match replaced {
            Ok(()) => error!(event = "producer_rebuilt", error = reason, "the kafka producer had to be rebuilt"),
            Err(error) => {
                error!(event = "producer_rebuild_failed", %error, "the kafka producer could not be rebuilt");
                sleep(REBUILD_RETRY_DELAY).await;
            }
        }
    }

    fn current(&self) -> Arc<NativeProducer> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn start(config: &ClientConfig, listener: &ConnectionListener) -> KafkaResult<Arc<NativeProducer>> {
    let producer: BaseProducer<Context> = config.create_with_context(Context(listener.clone()))?;
    let polled = PolledProducer::new(producer);
    polled.map(Arc::new).map_err(|error| KafkaError::ClientCreation(format!("no thread for it: {error}")))
}

fn headers(record: &Outgoing) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) }))
}

/// The delivery reports of one publish.
struct DeliveryReports {
    state: Mutex<ReportsState>,
    complete: Notify,
}

struct ReportsState {
    reports: Vec<Option<Result<(), Code>>>,
    missing: usize,
}

impl DeliveryReports {
    fn new(len: usize) -> Self {
        let state = ReportsState { reports: vec![None; len], missing: len };
        Self { state: Mutex::new(state), complete: Notify::new() }
    }

    /// Waits until every record has its report.
    async fn complete(&self) {
        while self.state().missing > 0 {
            self.complete.notified().await;
        }
    }

    /// Takes the reports. A missing one counts as a timeout.
    fn take(&self) -> Vec<Result<(), Code>> {
        let reports = std::mem::take(&mut self.state().reports);
        reports.into_iter().map(|report| report.unwrap_or(Err(Code::MessageTimedOut))).collect()
    }

    fn state(&self) -> MutexGuard<'_, ReportsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Travels with a record through librdkafka, and puts its delivery report into the right place.
pub(super) struct Ticket {
    reports: Arc<DeliveryReports>,
    index: usize,
}

impl Ticket {
    fn report(&self, report: Result<(), Code>) {
        let mut state = self.reports.state();
        // The slot is missing if the reports were taken: then nobody waits for this one.
        if let Some(slot) = state.reports.get_mut(self.index) {
            *slot = Some(report);
            state.missing -= 1;
            if state.missing == 0 {
                self.reports.complete.notify_one();
            }
        }
    }
}

pub(super) struct Context(ConnectionListener);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.report(match result {
            Ok(record) if record.offset() < 0 => Err(UNCONFIRMED),
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        });
    }
}
