//! A record asks to run.
//!
//! - A task that has crashed its workers too often ends here, and its record keeps that a dead letter follows. So the same claim,
//!   sent again, gets the same answer, as for any dead letter that may not be published yet.
//! - A failed task has one dead letter: whoever recorded the failure holds the lease until the letter is acknowledged and that is
//!   noted. Others wait for the end of the lease, as they do for a run, and then one of them gets it.
//! - The claim carries a quarantine budget, because only the store knows how often a task has crashed: a suspect beyond the budget
//!   is answered `Held`, and nothing is counted. Each suspect that is granted uses the budget up, whichever row grants it: one that
//!   is granted again, because the first answer was lost, leaves the others the same answers as before.

use std::sync::Arc;

use super::{FollowUp, Status, TaskState, Token, revoked_error};
use crate::core::names::WorkerId;

/// One record's request to run.
#[derive(Clone, Debug)]
pub(crate) struct ClaimRequest {
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

/// The worker that sends a batch of claims, and what it allows itself in it.
#[derive(Clone, Debug)]
pub(crate) struct Claimer {
    /// Who asks.
    pub worker: WorkerId,
    /// How long a granted lease lasts, in ms.
    pub lease_ms: u64,
    /// Whether ended leases may be taken over: not right after an outage, when their owners extend first.
    pub take_over: bool,
    /// Number of tasks that have crashed before that may still be granted in this batch.
    pub quarantine: u32,
    /// Number of crashes that a task may have had.
    pub max_deliveries: u32,
}

impl Claimer {
    /// Deliveries from which a task counts as a suspect and needs a quarantine slot.
    pub(crate) const SUSPECT: u32 = 2;
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
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
    /// The task ended, or went on under another record, long ago: the offset can be completed.
    Done,
    /// The task ended as revoked: the offset can be completed.
    Revoked,
    /// The task goes on under the next `seq`, but that record is perhaps not published: publish it, then complete the
    /// offset.
    Moved {
        /// The attempt that the next record carries.
        attempt: u32,
        /// When it may run, in ms since the Unix epoch; 0: at once.
        due: u64,
        /// JSON text of the error that made it go on.
        error: Option<Arc<str>>,
    },
    /// The task failed for good, just now or earlier, but the dead letter is perhaps not published: publish it, then
    /// complete the offset.
    Dead {
        /// JSON text of the error.
        error: Arc<str>,
        /// Crashes so far.
        deliveries: u32,
    },
}

/// A record asks to run; the first row of the table that fits decides. `is_dead`: whether a worker was declared dead, so that its
/// leases are over.
pub(crate) fn claim(
    slot: &mut Option<TaskState>, ask: &ClaimRequest, by: &mut Claimer, is_dead: impl Fn(&str) -> bool, now_us: u64,
) -> Claim {
    let claim = answer(slot, ask, by, is_dead, now_us);
    // Also one that is granted again, because the first answer was lost.
    if matches!(claim, Claim::Granted { deliveries: Claimer::SUSPECT.., .. }) {
        by.quarantine = by.quarantine.saturating_sub(1);
    }
    claim
}

fn answer(
    slot: &mut Option<TaskState>, ask: &ClaimRequest, by: &Claimer, is_dead: impl Fn(&str) -> bool, now_us: u64,
) -> Claim {
    let now_ms = now_us / 1_000;
    let token = TaskState::next_token(slot.as_ref(), now_us);
    let deliveries = slot.as_ref().map_or(0, |state| state.deliveries);
    let Some(state) = slot else {
        return grant(slot, ask, by, token, deliveries, now_ms);
    };
    if state.seq > ask.seq {
        return match state.follow_up {
            Some(FollowUp::Next { attempt, due }) if state.seq == ask.seq + 1 => {
                Claim::Moved { attempt, due, error: state.error.clone() }
            }
            _ => Claim::Done,
        };
    }
    let mine = state.worker.as_ref() == Some(&by.worker);
    // Whoever can't know whether the holder lives has to wait for the end of its lease, and longer after an outage.
    let is_abandoned = || !mine && state.worker.as_deref().is_some_and(&is_dead);
    let has_dead_letter = state.status == Status::Failure && state.follow_up == Some(FollowUp::Dead);
    match state.status {
        Status::Revoked => Claim::Revoked,
        Status::Failure if has_dead_letter && state.lease_until > now_ms && !is_abandoned() => {
            if mine && state.nonce == ask.nonce {
                return dead(state);
            }
            Claim::Held { ms_left: state.lease_until - now_ms, mine }
        }
        Status::Failure if has_dead_letter && state.worker.is_some() && !by.take_over && !is_abandoned() => {
            Claim::Held { ms_left: by.lease_ms, mine: false }
        }
        Status::Failure if has_dead_letter => {
            state.lease_to(by, ask.nonce, now_ms);
            dead(state)
        }
        Status::Success | Status::Failure => Claim::Done,
        Status::Running if state.lease_until > now_ms && !is_abandoned() => {
            if mine && state.nonce == ask.nonce {
                return Claim::Granted { token: state.token, deliveries, attempt: state.attempt };
            }
            Claim::Held { ms_left: state.lease_until - now_ms, mine }
        }
        Status::Running if !by.take_over && !is_abandoned() => Claim::Held { ms_left: by.lease_ms, mine: false },
        Status::Running if state.revoke => {
            state.token = token;
            state.error = Some(revoked_error(state.attempt));
            state.end(Status::Revoked, now_us);
            Claim::Revoked
        }
        Status::Running => {
            let deliveries = deliveries + 1;
            if deliveries > by.max_deliveries {
                state.token = token;
                state.deliveries = deliveries;
                state.error = Some(dead_error(deliveries, state.attempt));
                state.follow_up = Some(FollowUp::Dead);
                state.end(Status::Failure, now_us);
                state.lease_to(by, ask.nonce, now_ms);
                return dead(state);
            }
            if deliveries >= Claimer::SUSPECT && by.quarantine == 0 {
                return Claim::Held { ms_left: by.lease_ms, mine: false };
            }
            grant(slot, ask, by, token, deliveries, now_ms)
        }
        Status::Queued | Status::Scheduled | Status::Retrying => match state.eta {
            Some(eta) if eta > now_ms && state.stays_at(ask.seq) => Claim::Held { ms_left: eta - now_ms, mine: false },
            _ => grant(slot, ask, by, token, deliveries, now_ms),
        },
    }
}

fn grant(
    slot: &mut Option<TaskState>, ask: &ClaimRequest, by: &Claimer, token: Token, deliveries: u32, now_ms: u64,
) -> Claim {
    let queued_at = slot.as_ref().and_then(|state| state.queued_at);
    let carried = slot.as_ref().is_some_and(|state| state.carried);
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
        eta,
        carried,
        queued_at,
        started_at: Some(now_ms),
        ..TaskState::queued(Arc::clone(&ask.task), Arc::clone(&ask.queue), 0)
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
