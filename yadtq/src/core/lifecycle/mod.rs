//! The claim protocol: what a task's record in the store may become, and the answer that each caller gets.
//!
//! ```text
//!             claim            finish: succeeded, failed, revoked
//!  waiting ──────────► running ──────────────► success | failure | revoked
//!   ▲   ▲                │  ▲
//!   │   └── given back ──┤  └─ claim, once the lease is over (deliveries + 1)
//!   └─── retry, snooze ──┘     (seq + 1: another record asks from now on; or in place: the same one, once it is due)
//!   ▲
//!   └────── replay ◄──── failure | revoked, by an operator            (seq + 1, attempt 1)
//! ```
//! Waiting is `queued`, `scheduled` or `retrying`.
//!
//! These functions are the authority. The in-memory store runs them; the Redis scripts do the same and
//! are compared with them over random histories. A transition either changes the record and says so, or
//! changes nothing. A transition that is sent twice gives the same answer the second time.

mod claim;
mod end;

use std::sync::Arc;

pub(crate) use self::{
    claim::{Claim, ClaimRequest, Claimer, claim},
    end::{End, Finished, NextRun, finish},
};
use super::{as_text::as_text, names::WorkerId};

/// The state of a task.
///
/// ```
/// use yadtq::Status;
///
/// assert!(Status::Success.is_terminal());
/// assert_eq!("running".parse(), Ok(Status::Running));
/// assert_eq!(Status::Retrying.to_string(), "retrying");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// In its queue; no worker has claimed it, or one gave it back.
    Queued,
    /// Waits for its time.
    Scheduled,
    /// A worker holds its lease.
    Running,
    /// An attempt failed; the next one is on its way.
    Retrying,
    /// Ended with a result.
    Success,
    /// Ended with an error.
    Failure,
    /// Ended from outside, before it could succeed or fail.
    Revoked,
}

impl Status {
    pub(crate) const ALL: [Self; 7] =
        [Self::Queued, Self::Scheduled, Self::Running, Self::Retrying, Self::Success, Self::Failure, Self::Revoked];

    /// The status as the store and the command line spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Revoked => "revoked",
        }
    }

    /// Whether nothing can follow but a replay.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

as_text!(Status);

/// The text names no [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a task status")]
pub struct UnknownStatus;

/// A fence token: grows with every claim of a task, so that an older run can change nothing.
pub(crate) type Token = u64;

/// What has to be published before the offset of a task's record may be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    /// The task failed for good: its original record goes to the dead-letter topic.
    Dead,
    /// The task goes on under the next `seq`: its record is published again with this `attempt`.
    Next {
        /// The attempt that the next record carries.
        attempt: u32,
        /// When it may run, in ms since the Unix epoch; 0: at once.
        due: u64,
    },
    /// Nothing: the task goes on under the same record, which has to wait until the task's `eta`.
    Stay,
}

/// How far a run is, as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Grows with every report of one run.
    pub number: u64,
    /// JSON text.
    pub value: Arc<str>,
}

/// A task's record in the store, as far as the protocol looks at it, with what readers want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskState {
    /// Its state.
    pub status: Status,
    /// The number of the task's record, from 1: grows when the task goes on under another record.
    pub seq: u64,
    /// Which attempt of the handler this is, from 1.
    pub attempt: u32,
    /// The token of the latest claim or outside end; 0 before the first.
    pub token: Token,
    /// Number of leases that ended without an answer from their worker.
    pub deliveries: u32,
    /// The holder of the latest lease: who runs it, or publishes its dead letter.
    pub worker: Option<WorkerId>,
    /// Distinguishes the claims of one holder.
    pub nonce: u64,
    /// When the lease ends, in ms since the Unix epoch, on the store's clock.
    pub lease_until: u64,
    /// Whether the run was asked to end as revoked.
    pub revoke: bool,
    /// What must be published, or must have been, before the offset of the record is completed.
    pub follow_up: Option<FollowUp>,
    /// Whether a copy of one of its records may come at any later time, so that its end is remembered for longer.
    pub carried: bool,
    /// The task's name.
    pub task: Arc<str>,
    /// The task's queue.
    pub queue: Arc<str>,
    /// JSON text of the result.
    pub result: Option<Arc<str>>,
    /// JSON text of the error: `{"kind", "message", "attempt"}`.
    pub error: Option<Arc<str>>,
    /// When it may run, in ms since the Unix epoch, if it has to wait. Kept until then, even if the task was sent again
    /// and runs earlier: its end is remembered beyond that.
    pub eta: Option<u64>,
    /// How far the latest run is, or was when it was cut off.
    pub progress: Option<Progress>,
    /// When the client submitted it, in ms since the Unix epoch.
    pub queued_at: Option<u64>,
    /// When its latest run was granted.
    pub started_at: Option<u64>,
    /// When it ended.
    pub finished_at: Option<u64>,
}

/// The answer to the extension of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extended {
    /// The lease lives on.
    Live,
    /// The lease lives on, but the task was asked to end as revoked.
    Revoking,
    /// The token is no longer the task's.
    Lost,
}

/// The answer to a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revocation {
    /// It will not run (again).
    Revoked {
        /// Its record among the delayed tasks, if it may wait there.
        delayed: Option<Delayed>,
    },
    /// It runs, and this worker is asked to end it.
    Asked(WorkerId),
    /// It had ended like this before.
    Ended(Status),
}

/// A record among the delayed tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delayed {
    /// Its `seq`. The first one, if nothing is known of the task.
    pub seq: u64,
    /// When it is due, in ms since the Unix epoch; 0 if nothing is known of the task.
    pub eta: u64,
}

/// The answer to a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Its record can be published, under the next `seq` and as attempt 1.
    Queued,
    /// The task has gone on under a later `seq` than that of the record: this is its state.
    Past(Status),
    /// The task has not failed: this is its state.
    Refused(Status),
}

/// A lease as its holder remembers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseProof {
    /// The token of the grant.
    pub token: Token,
    /// Whether the lease was granted or extended within [`LeaseProof::MEMORY_MS`], so that a record that is missing
    /// must have been lost by the store, and cannot have ended and been forgotten.
    pub recent: bool,
}

impl LeaseProof {
    /// How long a holder's memory may stand in for a record that the store has lost, in ms. Half of the
    /// shortest life of a terminal marker.
    pub(crate) const MEMORY_MS: u64 = 30 * 60 * 1_000;
}

impl TaskState {
    /// A task that was just submitted.
    #[must_use]
    pub(crate) fn queued(task: Arc<str>, queue: Arc<str>, now_us: u64) -> Self {
        Self {
            status: Status::Queued,
            seq: 1,
            attempt: 1,
            token: 0,
            deliveries: 0,
            worker: None,
            nonce: 0,
            lease_until: 0,
            revoke: false,
            follow_up: None,
            carried: false,
            task,
            queue,
            result: None,
            error: None,
            eta: None,
            progress: None,
            queued_at: Some(now_us / 1_000),
            started_at: None,
            finished_at: None,
        }
    }

    /// A task that was just submitted, to run at `eta`.
    #[must_use]
    pub(crate) fn submitted(task: Arc<str>, queue: Arc<str>, eta: Option<u64>, now_us: u64) -> Self {
        let status = if eta.is_some() { Status::Scheduled } else { Status::Queued };
        Self { status, eta, ..Self::queued(task, queue, now_us) }
    }

    fn next_token(slot: Option<&Self>, now_us: u64) -> Token {
        now_us.max(slot.map_or(0, |state| state.token) + 1)
    }

    fn revoked(&self) -> Revocation {
        Revocation::Revoked { delayed: self.eta.map(|eta| Delayed { seq: self.seq, eta }) }
    }

    /// Whether the record under the `seq` after this one is the task's now, and nothing has happened to it yet.
    fn is_moved_from(&self, seq: u64) -> bool {
        !self.status.is_terminal() && self.seq == seq + 1 && matches!(self.follow_up, Some(FollowUp::Next { .. }))
    }

    /// Whether the record under this `seq` has to wait in place, and nothing has happened to the task since.
    fn stays_at(&self, seq: u64) -> bool {
        !self.status.is_terminal() && self.seq == seq && self.follow_up == Some(FollowUp::Stay)
    }

    /// Who has to publish a dead letter keeps the lease for that time.
    fn end(&mut self, status: Status, now_us: u64) {
        self.status = status;
        self.revoke = false;
        self.progress = None;
        self.finished_at = Some(now_us / 1_000);
        if self.follow_up != Some(FollowUp::Dead) {
            self.free();
        }
    }

    /// This worker holds its lease from now on.
    fn lease_to(&mut self, by: &Claimer, nonce: u64, now_ms: u64) {
        self.worker = Some(Arc::clone(&by.worker));
        self.nonce = nonce;
        self.lease_until = now_ms + by.lease_ms;
    }

    /// Nobody holds its lease.
    fn free(&mut self) {
        self.worker = None;
        self.nonce = 0;
        self.lease_until = 0;
    }
}

/// A holder says that it still runs the task. The record is made again if the store has lost it.
pub(crate) fn extend(
    slot: &mut Option<TaskState>, ask: &ClaimRequest, held: LeaseProof, worker: &WorkerId, lease_ms: u64, now_us: u64,
) -> Extended {
    if slot.is_none() && !held.recent {
        return Extended::Lost;
    }
    let state = slot.get_or_insert_with(|| remade(ask, held, now_us));
    if state.status != Status::Running || state.token != held.token {
        return Extended::Lost;
    }
    state.worker = Some(Arc::clone(worker));
    state.lease_until = now_us / 1_000 + lease_ms;
    if state.revoke { Extended::Revoking } else { Extended::Live }
}

/// The record under this `seq` is about to be published again, as it is. `false`: it must not be, and nothing changed, because the
/// task has ended, goes on under another record, or is not known.
pub(crate) fn carry(slot: &mut Option<TaskState>, seq: u64) -> bool {
    let Some(state) = slot.as_mut().filter(|state| !state.status.is_terminal() && state.seq == seq) else {
        return false;
    };
    state.carried = true;
    true
}

/// The dead letter of the record under this `seq` is acknowledged, so no claim asks for it again. `false`: there is no such failure
/// (any more), and nothing changed.
pub(crate) fn dead_lettered(slot: &mut Option<TaskState>, seq: u64) -> bool {
    let Some(state) = slot.as_mut().filter(|state| state.status == Status::Failure && state.seq <= seq) else {
        return false;
    };
    state.follow_up = None;
    state.free();
    true
}

/// A run reports how far it is; `false`: it is no longer the task's run. A hint, so nothing is made again.
pub(crate) fn progress(slot: &mut Option<TaskState>, token: Token, progress: &Progress) -> bool {
    let Some(state) = slot.as_mut().filter(|state| state.status == Status::Running && state.token == token) else {
        return false;
    };
    if state.progress.as_ref().is_none_or(|known| known.number < progress.number) {
        state.progress = Some(progress.clone());
    }
    true
}

/// Somebody wants the task to end. A run is asked to; everything else ends here, even a task that nobody has seen
/// yet.
pub(crate) fn revoke(slot: &mut Option<TaskState>, now_us: u64) -> Revocation {
    let token = TaskState::next_token(slot.as_ref(), now_us);
    // Nothing is known of it, so it may be delayed.
    let unseen = || TaskState { queued_at: None, eta: Some(0), ..TaskState::queued("".into(), "".into(), 0) };
    let state = slot.get_or_insert_with(unseen);
    match (state.status, &state.worker) {
        (Status::Revoked, _) => return state.revoked(),
        (status @ (Status::Success | Status::Failure), _) => return Revocation::Ended(status),
        (Status::Running, Some(worker)) => {
            state.revoke = true;
            return Revocation::Asked(Arc::clone(worker));
        }
        _ => {}
    }
    state.token = token;
    state.follow_up = None;
    state.result = None;
    state.error = Some(revoked_error(state.attempt));
    state.end(Status::Revoked, now_us);
    state.revoked()
}

/// An operator lets a dead task run again, as if it had never run but for its `seq`. `seq` is that of the record that
/// became the dead letter. Lifts a revocation; a task that the store has forgotten is made again.
pub(crate) fn replay(slot: &mut Option<TaskState>, seq: u64, task: &Arc<str>, queue: &Arc<str>, now_us: u64) -> Replay {
    match slot {
        Some(state) if state.status == Status::Queued && state.is_moved_from(seq) => return Replay::Queued,
        Some(state) if state.seq > seq => return Replay::Past(state.status),
        Some(state) if !matches!(state.status, Status::Failure | Status::Revoked) => {
            return Replay::Refused(state.status);
        }
        Some(_) | None => {}
    }
    *slot = Some(TaskState {
        seq: seq + 1,
        token: TaskState::next_token(slot.as_ref(), now_us),
        follow_up: Some(FollowUp::Next { attempt: 1, due: 0 }),
        carried: slot.as_ref().is_some_and(|state| state.carried),
        ..TaskState::queued(Arc::clone(task), Arc::clone(queue), now_us)
    });
    Replay::Queued
}

/// The error of a task that was revoked without a run that says so, as JSON text.
fn revoked_error(attempt: u32) -> Arc<str> {
    format!(r#"{{"kind":"revoked","message":"it was asked to end","attempt":{attempt}}}"#).into()
}

fn remade(ask: &ClaimRequest, held: LeaseProof, now_us: u64) -> TaskState {
    TaskState {
        status: Status::Running,
        seq: ask.seq,
        attempt: ask.attempt,
        token: held.token,
        nonce: ask.nonce,
        queued_at: None,
        ..TaskState::queued(Arc::clone(&ask.task), Arc::clone(&ask.queue), now_us)
    }
}
