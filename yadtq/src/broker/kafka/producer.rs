//! Sends records and waits for their acknowledgements.
//!
//! A publish of many records enqueues them all and waits once. After a fatal error (librdkafka can no longer promise
//! that nothing is stored twice or out of order) the client is replaced; what it had in flight is answered with an
//! error, as after any other failure.
//!
//! librdkafka takes it for granted that Kafka has a record when it acknowledged a later one of the same partition.
//! Kafka does accept a later one alone, when it knows nothing of this producer yet: seen when the first batches came
//! before a new partition had its leader. Such a record has no offset, which tells it from one that was acknowledged.
//! It is sent again: stored twice does no harm, a lost one does.

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
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tracing::error;

use super::{super::Outgoing, apart::DropApart, connection::Ears};

type NativeProducer = DropApart<ThreadedProducer<Context>>;

/// librdkafka looks for expired records once a second.
const EXPIRY_GRACE: Duration = Duration::from_secs(2);
/// Stands for "acknowledged, says librdkafka, but without an offset".
const UNSURE: Code = Code::NoOffset;
/// How often a full queue is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Producer {
    config: ClientConfig,
    ears: Ears,
    current: RwLock<Arc<NativeProducer>>,
}

impl Producer {
    pub(super) fn new(config: ClientConfig, ears: Ears) -> KafkaResult<Self> {
        let current = RwLock::new(start(&config, &ears)?);
        Ok(Self { config, ears, current })
    }

    /// The client, for questions to the cluster.
    pub(super) fn with_client<T>(&self, ask: impl FnOnce(&Client<Context>) -> T) -> T {
        ask(self.current().client())
    }

    /// Sends the records, whose topics exist, in order. One answer each, in the same order, soon after the deadline at
    /// the latest.
    pub(super) async fn send(&self, records: &[&Outgoing], deadline: Instant) -> Vec<Result<(), Code>> {
        let mut answers = self.send_once(records, deadline).await;
        while Instant::now() < deadline {
            let unsure: Vec<_> = (0..records.len()).filter(|&index| answers[index] == Err(UNSURE)).collect();
            if unsure.is_empty() {
                break;
            }
            let again: Vec<_> = unsure.iter().map(|&index| records[index]).collect();
            for (index, answer) in unsure.into_iter().zip(self.send_once(&again, deadline).await) {
                answers[index] = answer;
            }
        }
        answers
    }

    async fn send_once(&self, records: &[&Outgoing], deadline: Instant) -> Vec<Result<(), Code>> {
        let answers = Arc::new(Answers::new(records.len()));
        for (index, record) in records.iter().enumerate() {
            let ticket = Box::new(Ticket { answers: Arc::clone(&answers), index });
            self.enqueue(record, ticket, deadline).await;
        }
        // librdkafka answers by itself, unless the client was dropped or some of the time was spent before.
        let _ = timeout_at(deadline + EXPIRY_GRACE, answers.complete()).await;
        answers.take()
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
                Code::QueueFull if Instant::now() < deadline => sleep(FULL_PAUSE).await,
                Code::Fatal if Instant::now() < deadline => self.replace(&producer).await,
                code => return base.delivery_opaque.answer(Err(code)),
            }
        }
    }

    /// Puts a new client in the place of a broken one, unless somebody else has.
    async fn replace(&self, broken: &Arc<NativeProducer>) {
        let reason = broken.client().fatal_error().map_or_else(String::new, |(_, reason)| reason);
        let replaced = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&current, broken) {
                return;
            }
            start(&self.config, &self.ears).map(|new| *current = new)
        };
        match replaced {
            Ok(()) => error!(event = "producer_rebuilt", error = reason, "the kafka producer had to be rebuilt"),
            Err(error) => {
                error!(event = "producer_rebuild_failed", %error, "the kafka producer could not be rebuilt");
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    fn current(&self) -> Arc<NativeProducer> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn start(config: &ClientConfig, ears: &Ears) -> KafkaResult<Arc<NativeProducer>> {
    let producer = config.create_with_context(Context(ears.clone()))?;
    Ok(Arc::new(DropApart::new(producer)))
}

fn headers(record: &Outgoing) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) }))
}

/// The answers to one publish.
struct Answers {
    state: Mutex<AnswersState>,
    complete: Notify,
}

struct AnswersState {
    answers: Vec<Option<Result<(), Code>>>,
    missing: usize,
}

impl Answers {
    fn new(len: usize) -> Self {
        let state = AnswersState { answers: vec![None; len], missing: len };
        Self { state: Mutex::new(state), complete: Notify::new() }
    }

    async fn complete(&self) {
        while self.state().missing > 0 {
            self.complete.notified().await;
        }
    }

    fn take(&self) -> Vec<Result<(), Code>> {
        let answers = std::mem::take(&mut self.state().answers);
        answers.into_iter().map(|answer| answer.unwrap_or(Err(Code::MessageTimedOut))).collect()
    }

    fn state(&self) -> MutexGuard<'_, AnswersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes with a record through librdkafka and brings its answer back.
pub(super) struct Ticket {
    answers: Arc<Answers>,
    index: usize,
}

impl Ticket {
    fn answer(&self, answer: Result<(), Code>) {
        let mut state = self.answers.state();
        // Nobody waits any more if the answers were taken.
        if let Some(slot) = state.answers.get_mut(self.index) {
            *slot = Some(answer);
            state.missing -= 1;
            if state.missing == 0 {
                self.answers.complete.notify_one();
            }
        }
    }
}

pub(super) struct Context(Ears);

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
        ticket.answer(match result {
            Ok(record) if record.offset() < 0 => Err(UNSURE),
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        });
    }
}
