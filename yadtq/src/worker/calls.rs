//! The calls to Kafka and Redis that are under way, by kind, and when one that failed may be made again.
//!
//! Every call over the network is a future in one set, and comes back as an [`Answer`]. Of most kinds one call is under way at
//! a time: a batch goes when the previous one is back, never on a timer.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{
    finish::{
        carrier,
        completer::Pending,
        publisher::{self, Publication, Shrink},
        too_large::TooLarge,
    },
    job::{Job, Position, SourceId, TopicId},
    start::limits,
    timers::Backoff,
};
use crate::{
    broker::{Broker, BrokerError, Consumer, Event, Outgoing, Subscription, TopicState},
    core::{
        controls::ControlRecord,
        lifecycle::{Claim, Claimer, Extended, Finished, TaskState},
        limits::PermitTerms,
        names::{TaskId, WorkerId},
        ownership::{OwnRequest, Owned, Owner, Partitions},
        unique::UniqueKey,
    },
    store::{
        Answers, Beaten, Finish, FreeSlots, Lease, Notice, NoticeReceiver, PermitKey, PermitRequest, Store, StoreError,
        WantedSlots, WorkerInfo,
    },
    wire::{control, offer::WorkerMessage},
};

/// The time after which a warning is logged if the control topic does not return its first events; and again after each such
/// time.
const CONTROLS_LOG_DELAY: Duration = Duration::from_secs(10);
/// How long partitions that are to be given may wait for their last commit.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of attempts to confirm unique keys.
const CONFIRM_ATTEMPTS: usize = 5;

/// Number of attempts to keep permits.
const KEEP_PERMITS_ATTEMPTS: usize = 3;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Poll,
    LookUp,
    Create,
    Own,
    Release,
    ReadControls,
    Listen,
    Claim,
    ConfirmKeys,
    AskLimits,
    ReturnPermits,
    KeepPermits,
    Extend,
    Finish,
    Publish,
    NoteDeadLetters,
    Carry,
    Progress,
    Beat,
    Periodic,
    Memory,
    Inspect,
    Announce,
    SearchSlots,
    SendOffers,
    AnswerOffers,
    LookAtOffered,
    ForgetRevocations,
}

impl Kind {
    const COUNT: usize = Self::ForgetRevocations as usize + 1;
}

/// What a call has returned.
pub(super) enum Answer {
    Polled {
        source: SourceId,
        events: Vec<Event>,
    },
    LookedUp {
        sent: Instant,
        found: Result<Vec<Option<TopicState>>, BrokerError>,
    },
    Owned(Answers<Owned>),
    Released(TopicId, Partitions),
    Created,
    ControlsRead(Vec<Event>),
    Noticed {
        channel: Box<dyn NoticeReceiver>,
        notice: Notice,
    },
    Claimed {
        jobs: Vec<Arc<Job>>,
        sent: Instant,
        answers: Answers<Claim>,
    },
    LimitsAsked {
        questions: Vec<limits::Question>,
        sent: Instant,
        answers: Result<Vec<limits::Answer>, StoreError>,
    },
    Extended {
        leases: Vec<Lease>,
        sent: Instant,
        answers: Answers<Extended>,
    },
    Finished {
        ends: Vec<Pending>,
        answers: Answers<Finished>,
    },
    Published {
        at: Vec<Position>,
        /// The task and `seq` whose dead letter it was.
        dead_letter: Option<(TaskId, u64)>,
    },
    DeadLettersNoted {
        noted: Vec<(TaskId, u64)>,
        answers: Answers<bool>,
    },
    Carried {
        job: Arc<Job>,
        /// Whether Kafka has acknowledged a copy of its record.
        is_published: bool,
    },
    Beaten {
        sent: Instant,
        answer: Result<Beaten, StoreError>,
    },
    Announced(Result<(), StoreError>),
    SlotsFound {
        wanted: Vec<WantedSlots>,
        answers: Answers<Vec<(WorkerId, usize)>>,
    },
    OffersSent {
        messages: Vec<(WorkerId, WorkerMessage)>,
        answers: Answers<bool>,
    },
    LookedAtOffered {
        jobs: Vec<Arc<Job>>,
        answers: Answers<Option<TaskState>>,
    },
    Forgotten {
        /// Tasks whose revocations Kafka has not deleted.
        refused: Vec<TaskId>,
    },
    /// The call needs no answer.
    Done,
}

/// The calls of a worker.
#[derive(Default)]
pub(super) struct Calls {
    under_way: FuturesUnordered<BoxFuture<'static, (Kind, Answer)>>,
    kinds: [State; Kind::COUNT],
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Number of calls under way.
    count: usize,
    backoff: Backoff,
    /// The time before which no call may be made, if there is one.
    not_before: Option<Instant>,
}

impl Calls {
    /// Starts a call. It makes progress only while [`next`](Self::next) is awaited.
    pub(super) fn start(&mut self, kind: Kind, call: impl Future<Output = Answer> + Send + 'static) {
        self.kinds[kind as usize].count += 1;
        self.under_way.push(Box::pin(async move { (kind, call.await) }));
    }

    /// The answer of the next call that returns; `None` if no call is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        let (kind, answer) = self.under_way.next().await?;
        self.kinds[kind as usize].count -= 1;
        Some(answer)
    }

    /// Number of calls of this kind that are under way.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].count
    }

    /// Whether a call may be made of a kind of which at most one is under way: none is, and its wait is over.
    pub(super) fn may_start(&self, kind: Kind, now: Instant) -> bool {
        let state = &self.kinds[kind as usize];
        state.count == 0 && state.not_before.is_none_or(|at| at <= now)
    }

    /// Notes whether a call of this kind has worked. If it has not, the next one waits: 100 ms, and twice as long after each
    /// further failure in a row, up to 1 s.
    pub(super) fn answered(&mut self, kind: Kind, has_worked: bool, now: Instant) {
        let state = &mut self.kinds[kind as usize];
        match has_worked {
            true => state.backoff.reset(),
            false => state.not_before = Some(now + state.backoff.failed()),
        }
    }

    /// Makes the next call of this kind wait for this long.
    pub(super) fn delay(&mut self, kind: Kind, now: Instant, delay: Duration) {
        self.kinds[kind as usize].not_before = Some(now + delay);
    }

    /// The earliest time after `now` at which a kind that has to wait may be called again.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.kinds.iter().filter_map(|state| state.not_before).filter(|&at| at > now).min()
    }

    /// Drops all calls. Those that were sent may still take effect.
    pub(super) fn clear(&mut self) {
        self.under_way.clear();
        self.kinds.iter_mut().for_each(|state| state.count = 0);
    }
}

/// Looks topics up.
pub(super) async fn look_up(consumer: Arc<dyn Consumer>, topics: Vec<Arc<str>>) -> Answer {
    let sent = Instant::now();
    let found = consumer.look_up(&topics).await;
    Answer::LookedUp { sent, found }
}

/// Creates topics.
pub(super) async fn create(broker: Arc<dyn Broker>, topics: Vec<Arc<str>>) -> Answer {
    for topic in &topics {
        if let Err(error) = broker.create(topic).await {
            warn!(event = "topic_unavailable", %topic, %error, "trying again");
        }
    }
    Answer::Created
}

/// Asks which partitions this worker owns. `answer_timeout`: after this time without an answer it is asked again.
pub(super) async fn own(
    store: Arc<dyn Store>, by: Owner, requests: Vec<OwnRequest>, answer_timeout: Duration,
) -> Answer {
    Answer::Owned(within(answer_timeout, store.own(&by, &requests)).await)
}

/// Commits what has ended in partitions that are read no more. They can be given once Kafka has acknowledged that, or does not
/// in time: the next owner then reads more of what has ended, and learns so from the store.
pub(super) async fn release(subscription: Arc<dyn Subscription>, topic: TopicId, partitions: Partitions) -> Answer {
    let read: Vec<i32> = partitions.keys().copied().collect();
    let commit = async {
        let mut backoff = Backoff::default();
        while let Err(error) = subscription.commit(&read).await {
            debug!(event = "release_waits", partitions = ?read, %error, "what has ended is not committed yet; trying again");
            sleep(backoff.failed()).await;
        }
    };
    // Late or not, they are given.
    let _ = timeout(RELEASE_TIMEOUT, commit).await;
    Answer::Released(topic, partitions)
}

/// Waits for the next events of the control topic.
pub(super) async fn read_controls(subscription: Arc<dyn Subscription>, worker: WorkerId) -> Answer {
    loop {
        match timeout(CONTROLS_LOG_DELAY, subscription.next()).await {
            Ok(events) => return Answer::ControlsRead(events),
            Err(_) => warn!(event = "orders_awaited", %worker,
                "kafka does not return the controls of operators; no task is taken before they are known"),
        }
    }
}

/// Waits for more events of a control topic that was read to its end.
pub(super) async fn read_on(subscription: Arc<dyn Subscription>) -> Answer {
    Answer::ControlsRead(subscription.next().await)
}

/// The answer to a call, or an error if it takes longer than this.
async fn within<T>(
    answer_timeout: Duration, call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {answer_timeout:?}"));
    timeout(answer_timeout, call).await.map_err(late)?
}

/// Opens the worker's channel, and waits for its first notice. Without a channel, revocations are noticed with the next
/// extension of the lease.
pub(super) async fn listen(store: Arc<dyn Store>, worker: WorkerId) -> Answer {
    match store.control(&worker).await {
        Ok(channel) => listen_on(channel).await,
        Err(error) => {
            warn!(event = "control_unavailable", %worker, %error, "revocations are noticed with a delay");
            Answer::Done
        }
    }
}

/// Drops a call when this is cancelled.
pub(super) async fn until(stop: CancellationToken, call: impl Future<Output = Answer>) -> Answer {
    stop.run_until_cancelled(call).await.unwrap_or(Answer::Done)
}

/// Waits for the next notice on the worker's channel.
pub(super) async fn listen_on(mut channel: Box<dyn NoticeReceiver>) -> Answer {
    let notice = channel.next().await;
    Answer::Noticed { channel, notice }
}

pub(super) async fn claim(store: Arc<dyn Store>, by: Claimer, jobs: Vec<Arc<Job>>) -> Answer {
    let sent = Instant::now();
    let asks: Vec<_> = jobs.iter().map(|job| (job.envelope.id.clone(), Arc::clone(&job.ask))).collect();
    let answers = store.claim(&by, &asks).await;
    Answer::Claimed { jobs, sent, answers }
}

/// Confirms unique keys, with a few attempts.
pub(super) async fn confirm_keys(store: Arc<dyn Store>, worker: WorkerId, keys: Vec<(UniqueKey, TaskId)>) -> Answer {
    let mut backoff = Backoff::default();
    for left in (0..CONFIRM_ATTEMPTS).rev() {
        match store.confirm(&keys).await {
            Ok(_) => break,
            Err(_) if left > 0 => sleep(backoff.failed()).await,
            Err(error) => warn!(event = "key_not_confirmed", %worker, tasks = keys.len(), %error, "given up"),
        }
    }
    Answer::Done
}

/// Asks for permits first, and then, for the runs that got theirs, for the rates.
pub(super) async fn ask_limits(store: Arc<dyn Store>, terms: PermitTerms, questions: Vec<limits::Question>) -> Answer {
    let sent = Instant::now();
    let ask = async {
        let permits = limits::permits(&questions);
        let permits = if permits.is_empty() { Vec::new() } else { store.acquire_permit(terms, &permits).await? };
        let mut answers = limits::after_permits(&questions, permits);
        let rates = limits::rates(&questions, &answers);
        if !rates.is_empty() {
            limits::after_rates(&questions, &mut answers, store.admit(&rates).await?);
        }
        Ok(answers)
    };
    let answers = ask.await;
    Answer::LimitsAsked { questions, sent, answers }
}

/// Returns permits. If the call fails, they lapse with their leases.
pub(super) async fn return_permits(store: Arc<dyn Store>, permits: Vec<PermitKey>) -> Answer {
    if let Err(error) = store.release_permit(&permits).await {
        debug!(event = "places_not_vacated", places = permits.len(), %error, "they lapse in a few seconds");
    }
    Answer::Done
}

/// Extends the permits of runs by another lease, with a few attempts within it.
pub(super) async fn keep_permits(
    store: Arc<dyn Store>, lease_ms: u64, held: Vec<PermitRequest>, answer_timeout: Duration,
) -> Answer {
    let terms = PermitTerms { lease_ms, take_over: false };
    let mut backoff = Backoff::default();
    for _ in 0..KEEP_PERMITS_ATTEMPTS {
        match within(answer_timeout, store.acquire_permit(terms, &held)).await {
            Ok(_) => break,
            Err(error) => debug!(event = "places_not_kept", places = held.len(), %error, "trying again"),
        }
        sleep(backoff.failed().min(answer_timeout)).await;
    }
    Answer::Done
}

pub(super) async fn extend(
    store: Arc<dyn Store>, worker: WorkerId, lease_ms: u64, leases: Vec<Lease>, answer_timeout: Duration,
) -> Answer {
    let sent = Instant::now();
    let answers = within(answer_timeout, store.extend(&worker, lease_ms, &leases)).await;
    Answer::Extended { leases, sent, answers }
}

pub(super) async fn finish(store: Arc<dyn Store>, ends: Vec<Pending>, finishes: Vec<Finish>) -> Answer {
    let answers = store.finish(&finishes).await;
    Answer::Finished { ends, answers }
}

pub(super) async fn publish(to: Arc<TooLarge>, publication: Publication) -> Answer {
    let Publication { record, kind, at } = publication;
    let dead_letter = match kind {
        publisher::Kind::Next { shrink, unpublished } => {
            to.publish(record, &shrink, &unpublished).await;
            None
        }
        publisher::Kind::Unreadable => {
            publisher::publish(&*to.broker, record, &Shrink::DeadLetter).await;
            None
        }
        publisher::Kind::DeadLetter(task, seq) => {
            publisher::publish(&*to.broker, record, &Shrink::DeadLetter).await;
            Some((task, seq))
        }
    };
    Answer::Published { at, dead_letter }
}

/// Notes that dead letters are acknowledged.
pub(super) async fn note_dead_letters(store: Arc<dyn Store>, noted: Vec<(TaskId, u64)>) -> Answer {
    let answers = store.dead_lettered(&noted).await;
    Answer::DeadLettersNoted { noted, answers }
}

/// Publishes a record again.
pub(super) async fn carry(store: Arc<dyn Store>, broker: Arc<dyn Broker>, job: Arc<Job>) -> Answer {
    let is_published = carrier::carry(&*store, &*broker, &job).await;
    Answer::Carried { job, is_published }
}

pub(super) async fn beat(
    store: Arc<dyn Store>, info: WorkerInfo, answered_ms: u64, lease_ms: u64, answer_timeout: Duration,
) -> Answer {
    let sent = Instant::now();
    let answer = within(answer_timeout, store.beat(&info, answered_ms, lease_ms)).await;
    Answer::Beaten { sent, answer }
}

pub(super) async fn announce(store: Arc<dyn Store>, worker: WorkerId, slots: Vec<FreeSlots>) -> Answer {
    Answer::Announced(store.announce(&worker, &slots).await)
}

pub(super) async fn search_slots(store: Arc<dyn Store>, worker: WorkerId, wanted: Vec<WantedSlots>) -> Answer {
    let answers = store.take_slots(&worker, &wanted).await;
    Answer::SlotsFound { wanted, answers }
}

pub(super) async fn send_offers(store: Arc<dyn Store>, messages: Vec<(WorkerId, WorkerMessage)>) -> Answer {
    let answers = store.send(&messages).await;
    Answer::OffersSent { messages, answers }
}

/// Lets owners know what became of the records that they offered. If that is lost, they find out.
pub(super) async fn answer_offers(store: Arc<dyn Store>, messages: Vec<(WorkerId, WorkerMessage)>) -> Answer {
    if let Err(error) = store.send(&messages).await {
        debug!(event = "offers_not_answered", %error, "their owners will notice");
    }
    Answer::Done
}

/// Reads what became of records that were offered.
pub(super) async fn look_at_offered(store: Arc<dyn Store>, jobs: Vec<Arc<Job>>) -> Answer {
    let ids: Vec<_> = jobs.iter().map(|job| job.envelope.id.clone()).collect();
    let answers = store.read(&ids, None).await;
    Answer::LookedAtOffered { jobs, answers }
}

/// Deletes revocations that are not needed any more.
pub(super) async fn forget_revocations(broker: Arc<dyn Broker>, topic: Arc<str>, ids: Vec<TaskId>) -> Answer {
    let deletion = |id: &TaskId| {
        let (key, value) = control::record(&ControlRecord::Forget { task_id: id.to_string() });
        let topic = Arc::clone(&topic);
        Outgoing { topic, key, value, partition: Some(control::CONTROL_PARTITION), headers: Vec::new() }
    };
    let answers = broker.publish(ids.iter().map(deletion).collect()).await;
    let refused = ids.into_iter().zip(answers).filter_map(|(id, answer)| answer.is_err().then_some(id));
    Answer::Forgotten { refused: refused.collect() }
}

/// Logs settings of the servers that endanger tasks or results.
pub(super) async fn inspect(broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Answer {
    match broker.ping().await {
        Ok(info) => log_warnings("broker_warning", &info.summary, &info.warnings),
        Err(error) => warn!(event = "broker_unreachable", %error, "kafka cannot be reached yet; trying on"),
    }
    match store.ping().await {
        Ok(info) => log_warnings("backend_warning", &info.summary, &info.warnings),
        Err(error) => warn!(event = "backend_unreachable", %error, "redis cannot be reached yet; trying on"),
    }
    Answer::Done
}

fn log_warnings(event: &'static str, server: &str, warnings: &[String]) {
    for warning in warnings {
        error!(event, server, "{warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_call_of_a_kind_at_a_time_and_a_failed_one_waits() {
        let (mut calls, now) = (Calls::default(), Instant::now());
        assert!(calls.may_start(Kind::Claim, now));
        calls.start(Kind::Claim, async { Answer::Done });
        assert!(!calls.may_start(Kind::Claim, now) && calls.may_start(Kind::Finish, now));
        assert!(matches!(calls.next().await, Some(Answer::Done)));
        calls.answered(Kind::Claim, false, now);
        assert!(!calls.may_start(Kind::Claim, now));
        let due = calls.next_due(now).unwrap();
        assert!(calls.may_start(Kind::Claim, due));
        assert_eq!(calls.next_due(due), None, "nothing wakes the loop again for it");
    }
}
