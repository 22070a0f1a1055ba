//! The claim protocol: what a task's record in the store may become, and what each caller is told.
//!
//! ```text
//!             claim                complete
//!  waiting ──────────► running ──────────────► success | failure | revoked
//!   ▲   ▲                │  ▲
//!   │   └─── release ────┤  └─ claim, once the lease is over (deliveries + 1)
//!   └────── hand on ─────┘     (seq + 1: another record asks from now on; or in place: the same one, once it is due)
//!   ▲
//!   └────── replay ◄──── failure | revoked, on an operator's word     (seq + 1, attempt 1)
//! ```
//! Waiting is `queued`, `scheduled` or `retrying`.
//!
//! These functions are the authority. The in-memory store runs them; the Redis scripts do the same and
//! are compared with them over random histories. A transition either changes the record and says so, or
//! changes nothing. Sent twice, it gives the same answer the second time.

use std::sync::Arc;

use super::names::WorkerId;

/// Where a task stands.
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
    const ALL: [Self; 7] =
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

/// The text names no [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a task status")]
pub struct UnknownStatus;

/// A fence token: grows with every claim of a task, so that an older run can change nothing.
pub type Token = u64;

/// What has to be published before the offset of a task's record may be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOn {
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

/// How far a run is, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Grows with every word of one run.
    pub number: u64,
    /// JSON text.
    pub value: Arc<str>,
}

/// A task's record in the store, as far as the protocol looks at it, with what readers want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// Where the task stands.
    pub status: Status,
    /// How often the task was handed on, from 1.
    pub seq: u64,
    /// Which attempt of the handler this is, from 1.
    pub attempt: u32,
    /// The token of the latest claim or outside end; 0 before the first.
    pub token: Token,
    /// How often a lease ended without a word from its worker.
    pub deliveries: u32,
    /// The holder of the latest lease.
    pub worker: Option<WorkerId>,
    /// Tells the claims of one holder apart.
    pub nonce: u64,
    /// When the lease ends, in ms since the Unix epoch, on the store's clock.
    pub lease_until: u64,
    /// Whether the run was asked to end as revoked.
    pub revoke: bool,
    /// What must be published, or must have been, before the record's offset is completed.
    pub hand_on: Option<HandOn>,
    /// The task's name.
    pub task: Arc<str>,
    /// The task's queue.
    pub queue: Arc<str>,
    /// JSON text of the result.
    pub result: Option<Arc<str>>,
    /// JSON text of the error: `{"kind", "message", "attempt"}`.
    pub error: Option<Arc<str>>,
    /// When it may run, in ms since the Unix epoch, if it was told to wait. Kept while that is to come, also by a task that
    /// was sent again and runs earlier: its end is remembered beyond that.
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

/// One record's request to run.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The record's `seq`.
    pub seq: u64,
    /// The record's `attempt`.
    pub attempt: u32,
    /// Stays the same when the same request is sent again.
    pub nonce: u64,
    /// The task's name.
    pub task: Arc<str>,
    /// The queue the record came from.
    pub queue: Arc<str>,
}

/// What one worker allows itself in one batch of claims.
#[derive(Clone, Debug)]
pub struct Claimer {
    /// Who asks.
    pub worker: WorkerId,
    /// How long a granted lease lasts, in ms.
    pub lease_ms: u64,
    /// Whether ended leases may be taken over: not right after an outage, when their owners extend first.
    pub take_over: bool,
    /// How many tasks that have crashed before the batch may still be granted.
    pub quarantine: u32,
    /// How many crashes a task may have had.
    pub max_deliveries: u32,
}

impl Claimer {
    /// Deliveries from which a task counts as a suspect and needs a quarantine slot.
    pub const SUSPECT: u32 = 2;
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The worker runs the task under this token.
    Granted {
        /// Must be shown at every later transition.
        token: Token,
        /// Crashes so far; from [`Claimer::SUSPECT`] on it runs in quarantine.
        deliveries: u32,
        /// Which attempt this is: later than the record's if earlier ones were made in place.
        attempt: u32,
    },
    /// Somebody's lease lives, or must be left alone for now, or the task waits in place: ask again after that many
    /// ms.
    Held {
        /// Until the lease ends, or the task is due.
        ms_left: u64,
        /// Whether this very worker holds it.
        mine: bool,
    },
    /// Ended or handed on long ago: the offset can be completed.
    Done,
    /// Ended as revoked: the offset can be completed.
    Revoked,
    /// Handed on, but perhaps not published: publish the record under the next `seq`, then complete the offset.
    Moved {
        /// The attempt that the next record carries.
        attempt: u32,
        /// When it may run, in ms since the Unix epoch; 0: at once.
        due: u64,
        /// JSON text of the error that made it go on.
        error: Option<Arc<str>>,
    },
    /// Failed for good, just now or earlier, but the dead letter is perhaps not published: publish it, then
    /// complete the offset.
    Dead {
        /// JSON text of the error.
        error: Arc<str>,
        /// Crashes so far.
        deliveries: u32,
    },
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `Success`, `Failure` or `Revoked`.
    pub status: Status,
    /// JSON text of the result, if it is to be kept.
    pub result: Option<Arc<str>>,
    /// JSON text of the error.
    pub error: Option<Arc<str>>,
    /// `Dead` if a dead letter follows.
    pub hand_on: Option<HandOn>,
}

/// How a run that has not ended the task goes on: under the next `seq`, or in place.
#[derive(Clone, Debug)]
pub struct Next {
    /// `Retrying` or `Scheduled`.
    pub status: Status,
    /// The attempt that the next record carries.
    pub attempt: u32,
    /// When it may run, in ms since the Unix epoch; 0: at once.
    pub due: u64,
    /// JSON text of the error that made it go on.
    pub error: Option<Arc<str>>,
    /// Whether the same record asks again, so that those behind it wait.
    pub in_place: bool,
}

/// The answer to a hand-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOn {
    /// The record under the next `seq` can be published; in place: the same one asks when it is due.
    Recorded,
    /// Nothing changed, for the run was asked to end as revoked: complete it so.
    Revoking,
    /// The token is no longer the task's: nothing changed.
    Stale,
}

/// The answer to a completion or a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Readers can see it.
    Recorded,
    /// The token is no longer the task's: nothing changed, what this run did is not recorded.
    Stale,
}

/// The answer to the extension of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// The lease lives on.
    Live,
    /// The lease lives on, but the task was asked to end as revoked.
    Revoking,
    /// The token is no longer the task's.
    Lost,
}

/// The answer to a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It will not run (again).
    Revoked {
        /// The `seq` of its record among the delayed tasks, if it waited there.
        delayed: Option<u64>,
    },
    /// It runs, and this worker is asked to end it.
    Asked(WorkerId),
    /// It had ended like this before.
    Ended(Status),
}

/// The answer to a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Its record can be published, under the next `seq` and as attempt 1.
    Queued,
    /// The task has gone on under a later `seq` than that of the record: it stands there, or ended so.
    Past(Status),
    /// The task has not failed: it stands there, or ended so.
    Refused(Status),
}

/// A lease as its holder remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The token of the grant.
    pub token: Token,
    /// Whether the lease was granted or extended within [`Held::MEMORY_MS`], so that a record that is missing
    /// must have been lost by the store, and cannot have ended and been forgotten.
    pub recent: bool,
}

impl Held {
    /// How long a holder's memory may stand in for a record that the store has lost, in ms. Half of the
    /// shortest life of a terminal marker.
    pub const MEMORY_MS: u64 = 30 * 60 * 1_000;
}

impl TaskState {
    /// A task that was just submitted.
    #[must_use]
    pub fn queued(task: Arc<str>, queue: Arc<str>, now_us: u64) -> Self {
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
            hand_on: None,
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
    pub fn submitted(task: Arc<str>, queue: Arc<str>, eta: Option<u64>, now_us: u64) -> Self {
        let status = if eta.is_some() { Status::Scheduled } else { Status::Queued };
        Self { status, eta, ..Self::queued(task, queue, now_us) }
    }

    fn next_token(slot: Option<&Self>, now_us: u64) -> Token {
        now_us.max(slot.map_or(0, |state| state.token) + 1)
    }

    fn revoked(&self) -> Revocation {
        Revocation::Revoked { delayed: self.eta.map(|_| self.seq) }
    }

    /// Whether the record under the `seq` after this one is the task's now, and nothing has happened to it yet.
    fn is_moved_from(&self, seq: u64) -> bool {
        !self.status.is_terminal() && self.seq == seq + 1 && matches!(self.hand_on, Some(HandOn::Next { .. }))
    }

    /// Whether the record under this `seq` is told to wait in place, and nothing has happened to the task since.
    fn stays_at(&self, seq: u64) -> bool {
        !self.status.is_terminal() && self.seq == seq && self.hand_on == Some(HandOn::Stay)
    }

    fn end(&mut self, status: Status, now_us: u64) {
        self.status = status;
        self.revoke = false;
        self.worker = None;
        self.nonce = 0;
        self.lease_until = 0;
        self.progress = None;
        self.finished_at = Some(now_us / 1_000);
    }
}

/// A record asks to run; the first row of the table that fits decides.
pub fn claim(slot: &mut Option<TaskState>, ask: &Ask, by: &mut Claimer, now_us: u64) -> Claim {
    let now_ms = now_us / 1_000;
    let token = TaskState::next_token(slot.as_ref(), now_us);
    let deliveries = slot.as_ref().map_or(0, |state| state.deliveries);
    let Some(state) = slot else {
        return grant(slot, ask, by, token, deliveries, now_ms);
    };
    if state.seq > ask.seq {
        return match state.hand_on {
            Some(HandOn::Next { attempt, due }) if state.seq == ask.seq + 1 => {
                Claim::Moved { attempt, due, error: state.error.clone() }
            }
            _ => Claim::Done,
        };
    }
    match state.status {
        Status::Revoked => Claim::Revoked,
        Status::Success | Status::Failure => match state.hand_on {
            Some(HandOn::Dead) => dead(state),
            _ => Claim::Done,
        },
        Status::Running if state.lease_until > now_ms => {
            let mine = state.worker.as_ref() == Some(&by.worker);
            if mine && state.nonce == ask.nonce {
                return Claim::Granted { token: state.token, deliveries, attempt: state.attempt };
            }
            Claim::Held { ms_left: state.lease_until - now_ms, mine }
        }
        Status::Running if !by.take_over => Claim::Held { ms_left: by.lease_ms, mine: false },
        Status::Running if state.revoke => {
            state.token = token;
            state.end(Status::Revoked, now_us);
            Claim::Revoked
        }
        Status::Running => {
            let deliveries = deliveries + 1;
            if deliveries > by.max_deliveries {
                state.token = token;
                state.deliveries = deliveries;
                state.error = Some(dead_error(deliveries, state.attempt));
                state.hand_on = Some(HandOn::Dead);
                state.end(Status::Failure, now_us);
                return dead(state);
            }
            if deliveries >= Claimer::SUSPECT {
                if by.quarantine == 0 {
                    return Claim::Held { ms_left: by.lease_ms, mine: false };
                }
                by.quarantine -= 1;
            }
            grant(slot, ask, by, token, deliveries, now_ms)
        }
        Status::Queued | Status::Scheduled | Status::Retrying => match state.eta {
            Some(eta) if eta > now_ms && state.stays_at(ask.seq) => Claim::Held { ms_left: eta - now_ms, mine: false },
            _ => grant(slot, ask, by, token, deliveries, now_ms),
        },
    }
}

fn grant(slot: &mut Option<TaskState>, ask: &Ask, by: &Claimer, token: Token, deliveries: u32, now_ms: u64) -> Claim {
    let queued_at = slot.as_ref().and_then(|state| state.queued_at);
    // The record of a task that goes on in place knows nothing of its later attempts.
    let known = slot.as_ref().filter(|state| state.seq == ask.seq).map_or(0, |state| state.attempt);
    let attempt = ask.attempt.max(known);
    // Another record of the task still waits, and must find out that it has ended.
    let eta = slot.as_ref().and_then(|state| state.eta).filter(|&eta| eta > now_ms);
    *slot = Some(TaskState {
        status: Status::Running,
        seq: ask.seq,
        attempt,
        token,
        deliveries,
        worker: Some(Arc::clone(&by.worker)),
        nonce: ask.nonce,
        lease_until: now_ms + by.lease_ms,
        revoke: false,
        hand_on: None,
        task: Arc::clone(&ask.task),
        queue: Arc::clone(&ask.queue),
        result: None,
        error: None,
        eta,
        progress: None,
        queued_at,
        started_at: Some(now_ms),
        finished_at: None,
    });
    Claim::Granted { token, deliveries, attempt }
}

fn dead(state: &TaskState) -> Claim {
    Claim::Dead { error: state.error.clone().unwrap_or_else(|| "null".into()), deliveries: state.deliveries }
}

/// The error of a task that crashed its workers too often, as JSON text.
fn dead_error(deliveries: u32, attempt: u32) -> Arc<str> {
    format!(r#"{{"kind":"deliveries","message":"{deliveries} workers died while they ran it","attempt":{attempt}}}"#)
        .into()
}

/// A run reports how it ended. The record is made again if the store has lost it.
pub fn complete(slot: &mut Option<TaskState>, ask: &Ask, held: Held, outcome: &Outcome, now_us: u64) -> Verdict {
    match slot {
        Some(state) if state.token != held.token => return Verdict::Stale,
        Some(state) if state.status.is_terminal() => return Verdict::Recorded,
        Some(state) if state.status != Status::Running => return Verdict::Stale,
        None if !held.recent => return Verdict::Stale,
        Some(_) | None => {}
    }
    let state = slot.get_or_insert_with(|| remade(ask, held, now_us));
    state.result.clone_from(&outcome.result);
    state.error.clone_from(&outcome.error);
    state.hand_on = outcome.hand_on;
    state.end(outcome.status, now_us);
    Verdict::Recorded
}

/// A run gives the task up, to a later record or to its own at a later time: a retry, or a wait for its time. The
/// task is made again if the store has lost it.
pub fn hand_on(slot: &mut Option<TaskState>, ask: &Ask, held: Held, next: &Next, now_us: u64) -> HandedOn {
    match slot {
        Some(state) if state.token != held.token => return HandedOn::Stale,
        Some(state) if state.status == Status::Running && state.revoke => return HandedOn::Revoking,
        Some(state) if state.status == Status::Running => {}
        Some(state) if next.in_place && state.stays_at(ask.seq) => return HandedOn::Recorded,
        Some(state) if !next.in_place && state.is_moved_from(ask.seq) => return HandedOn::Recorded,
        None if held.recent => {}
        Some(_) | None => return HandedOn::Stale,
    }
    let state = slot.get_or_insert_with(|| remade(ask, held, now_us));
    state.status = next.status;
    state.seq = if next.in_place { ask.seq } else { ask.seq + 1 };
    state.attempt = next.attempt;
    state.deliveries = 0;
    state.worker = None;
    state.nonce = 0;
    state.lease_until = 0;
    let moved = HandOn::Next { attempt: next.attempt, due: next.due };
    state.hand_on = Some(if next.in_place { HandOn::Stay } else { moved });
    state.error.clone_from(&next.error);
    state.eta = Some(next.due);
    HandedOn::Recorded
}

/// A holder says that it still runs the task. The record is made again if the store has lost it.
pub fn extend(
    slot: &mut Option<TaskState>, ask: &Ask, held: Held, worker: &WorkerId, lease_ms: u64, now_us: u64,
) -> Extended {
    if slot.is_none() && !held.recent {
        return Extended::Lost;
    }
    let state = slot.get_or_insert_with(|| TaskState { nonce: ask.nonce, ..remade(ask, held, now_us) });
    if state.status != Status::Running || state.token != held.token {
        return Extended::Lost;
    }
    state.worker = Some(Arc::clone(worker));
    state.lease_until = now_us / 1_000 + lease_ms;
    if state.revoke { Extended::Revoking } else { Extended::Live }
}

/// A run tells how far it is; `false`: it is not the task's run any more. A hint, so nothing is made again.
pub fn progress(slot: &mut Option<TaskState>, token: Token, progress: &Progress) -> bool {
    let Some(state) = slot.as_mut().filter(|state| state.status == Status::Running && state.token == token) else {
        return false;
    };
    if state.progress.as_ref().is_none_or(|known| known.number < progress.number) {
        state.progress = Some(progress.clone());
    }
    true
}

/// A stopping worker gives a task back: anybody may claim it at once, and it counts as nothing.
pub fn release(slot: &mut Option<TaskState>, token: Token, now_us: u64) -> Verdict {
    let Some(state) = slot else { return Verdict::Recorded };
    if state.status == Status::Revoked || state.status == Status::Queued && state.token == token {
        return Verdict::Recorded;
    }
    if state.status != Status::Running || state.token != token {
        return Verdict::Stale;
    }
    if state.revoke {
        state.token = TaskState::next_token(Some(state), now_us);
        state.end(Status::Revoked, now_us);
        return Verdict::Recorded;
    }
    state.status = Status::Queued;
    state.worker = None;
    state.nonce = 0;
    state.lease_until = 0;
    state.progress = None;
    Verdict::Recorded
}

/// Somebody wants the task to end. A run is asked to; everything else ends here, also what nobody has seen yet.
pub fn revoke(slot: &mut Option<TaskState>, now_us: u64) -> Revocation {
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
    state.hand_on = None;
    state.result = None;
    state.error = Some(revoked_error(state.attempt));
    state.end(Status::Revoked, now_us);
    state.revoked()
}

/// An operator lets a dead task run again, as if it had never run but for its `seq`. `seq` is that of the record that
/// became the dead letter. Lifts a revocation; a task that the store has forgotten is made again.
pub fn replay(slot: &mut Option<TaskState>, seq: u64, task: &Arc<str>, queue: &Arc<str>, now_us: u64) -> Replay {
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
        hand_on: Some(HandOn::Next { attempt: 1, due: 0 }),
        ..TaskState::queued(Arc::clone(task), Arc::clone(queue), now_us)
    });
    Replay::Queued
}

/// The error of a task that was revoked before it could run, as JSON text.
fn revoked_error(attempt: u32) -> Arc<str> {
    format!(r#"{{"kind":"revoked","message":"it was asked to end","attempt":{attempt}}}"#).into()
}

fn remade(ask: &Ask, held: Held, now_us: u64) -> TaskState {
    TaskState {
        status: Status::Running,
        seq: ask.seq,
        attempt: ask.attempt,
        token: held.token,
        queued_at: None,
        ..TaskState::queued(Arc::clone(&ask.task), Arc::clone(&ask.queue), now_us)
    }
}
