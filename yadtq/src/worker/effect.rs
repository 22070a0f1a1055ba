//! What a part of the worker wants done: by another part, or by the outside world.
//!
//! Parts own their state, take events, and return effects. They know neither each other's decisions nor the network. The
//! [event loop](super::event_loop) applies the effects in the order in which they were returned.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::job::{Job, Position, RunId, SourceId, TopicId};
use crate::{
    broker::Incoming,
    clock::millis,
    core::{lifecycle::Token, ownership::Partitions},
    task::{ArgsError, Finished},
    wire::{envelope::MAX_NUMBER, failure::Failure},
};

/// The effects of an event, in order.
pub(crate) type Effects = VecDeque<Effect>;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Intake: the record has ended or was published anew, so its offset can be committed.
    Complete(Position),
    /// Intake: the job is ready to be claimed (again).
    Ask(Arc<Job>),
    /// Start: the job is ready to be claimed again after this time.
    AskAfter(Arc<Job>, Duration),
    /// Start: the record keeps its place in its partition, and is claimed anew (with another nonce) after this time.
    WaitInPlace(Box<Job>, Duration),
    /// Start: ask the limits whether the run may start.
    AskLimits(RunId),
    /// Runs: the store has granted the task to this worker.
    Grant(Grant),
    /// Runs: a claim of the task is alive, or the task is not due.
    Hold {
        job: Arc<Job>,
        /// How long that lasts.
        left: Duration,
        /// Whether this worker has the claim.
        is_ours: bool,
    },
    /// Runs: these partitions belong to another worker now.
    GiveBack { source: SourceId, partitions: Vec<i32> },
    /// Runs: slots may be free for what is ready.
    FillSlots,
    /// Executor: there is a slot for the run.
    Start(RunId),
    /// Finish: the run has ended, or will not start.
    End(RunId, Ended),
    /// Finish: publish the task's next record.
    PublishNext(NextRecord),
    /// Finish: publish the record again at the end of its topic, and complete its offset then.
    Carry(Arc<Job>),
    /// Finish: publish a dead letter.
    DeadLetter(DeadLetter),
    /// Finish: the record is not a task, for this reason.
    Unreadable { at: Position, topic: Arc<str>, record: Incoming, reason: String },
    /// Kafka: read these partitions, which this worker owns.
    Assign(TopicId, Vec<i32>),
    /// Kafka: read these partitions no more, since they belong to another worker now.
    Revoke(TopicId, Vec<i32>),
    /// Kafka: read these partitions no more, and commit what has ended, so that they can be given under these epochs.
    Release(TopicId, Partitions),
    /// Kafka: the topic was deleted, so what was stored for it means nothing.
    Forget(TopicId),
    /// Kafka: poll the source for its next events.
    Poll(SourceId),
    /// Kafka: fetch nothing more from the partition.
    Pause(SourceId, i32),
    /// Kafka: fetch from the partition again.
    Resume(SourceId, i32),
    /// Kafka: this is the next offset of a partition to commit, with this metadata.
    StoreOffset(SourceId, i32, i64, String),
}

/// One moment on two clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// On the clock of this process, for what is measured.
    pub(crate) at: Instant,
    /// In ms since the Unix epoch, for what other processes read.
    pub(crate) ms: u64,
}

/// The time after this wait, in ms since the Unix epoch: at the latest the end of time as the store counts it.
pub(crate) fn due_after(wait: Duration, now_ms: u64) -> u64 {
    now_ms.saturating_add(millis(wait)).min(MAX_NUMBER)
}

/// A claim that was granted.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) job: Arc<Job>,
    /// The fence token of the lease.
    pub(crate) token: Token,
    /// How often the task has crashed a worker.
    pub(crate) deliveries: u32,
    /// When the claim was sent: the lease lasts from then on at least.
    pub(crate) sent: Instant,
}

/// How a run ended, or why it does not start.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The function returned.
    Returned(Finished),
    /// The arguments did not fit, so the function never ran.
    Arguments(ArgsError),
    /// The function panicked with this message.
    Panicked(String),
    /// It ran for this long, which is more than its timeout.
    TimedOut(Duration),
    /// Its future was dropped before it ended: it was aborted, or its runtime is gone.
    Dropped,
    /// Its task was revoked.
    Revoked,
    /// An operator has purged its queue.
    Purged,
    /// The task expired before it could start.
    Expired,
    /// No task of its name is registered here.
    UnknownTask,
    /// An operator has disabled tasks of its name, so that they become dead letters.
    Disabled,
    /// It has to wait until then, in ms since the Unix epoch.
    Waits(u64),
    /// Any worker may claim it; this one claims it again after this time.
    GivenBack(Duration),
}

impl Ended {
    /// How long this worker leaves a task to others after it gave the task back.
    pub(crate) const GIVEN_BACK_DELAY: Duration = Duration::from_millis(100);
}

/// A task goes on under its next `seq`. Its new record is published, then these offsets are completed.
#[derive(Debug)]
pub(crate) struct NextRecord {
    pub(crate) job: Arc<Job>,
    /// The attempt that the next run makes, from 1.
    pub(crate) attempt: u32,
    /// When it may run, in ms since the Unix epoch. A time in the past means at once.
    pub(crate) due: u64,
    /// The time that the limits have reserved for it, in ms since the Unix epoch.
    pub(crate) limit_slot: Option<u64>,
    /// Since when it waits for a worker that knows its name, in ms since the Unix epoch.
    pub(crate) unknown_since: Option<u64>,
    /// JSON text of the error that made it go on.
    pub(crate) error: Option<Arc<str>>,
    /// The offsets that are completed then: of the record, and of those that joined its run.
    pub(crate) at: Vec<Position>,
}

/// A task has failed for good. Its dead letter is published, then these offsets are completed.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) job: Arc<Job>,
    pub(crate) failure: Failure,
    /// How often the task has crashed a worker.
    pub(crate) deliveries: u32,
    /// The offsets that are completed then.
    pub(crate) at: Vec<Position>,
}
