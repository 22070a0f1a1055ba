//! A run ends: its task has ended with it, has another run, or was given back.
//!
//! - A run whose revocation was asked does not go on: `finish` answers `Revoking` and changes nothing, and the worker finishes the
//!   run as revoked. So whoever waits is notified.
//! - With an ordering key, a task that goes on keeps its `seq`, since a new record would come after its successors. Then the store
//!   knows more than the record, and a grant names the attempt.

use std::sync::Arc;

use super::{ClaimRequest, FollowUp, LeaseProof, Status, TaskState, remade, revoked_error};

/// How a run ended: what becomes of its task. Only the constructors make one, so that each is a legal combination.
#[derive(Clone, Debug)]
pub(crate) struct End {
    status: Status,
    result: Option<Arc<str>>,
    error: Option<Arc<str>>,
    next: Option<NextRun>,
}

/// The next run of a task that was retried or snoozed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextRun {
    /// The attempt of the handler that it is, from 1.
    pub attempt: u32,
    /// When it may start, in ms since the Unix epoch; 0: at once.
    pub due: u64,
    /// Whether the same record asks for it, so that the records behind it wait. Otherwise another record asks for
    /// it, under the next `seq`.
    pub in_place: bool,
}

impl End {
    /// The task succeeded. `result` is JSON text; `None`: it is not kept.
    #[must_use]
    pub(crate) fn succeeded(result: Option<Arc<str>>) -> Self {
        Self { status: Status::Success, result, error: None, next: None }
    }

    /// The task failed for good; its dead letter is to be published after that. `error` is JSON text.
    #[must_use]
    pub(crate) fn failed(error: Arc<str>) -> Self {
        Self { status: Status::Failure, result: None, error: Some(error), next: None }
    }

    /// The task ended without having succeeded or failed. `error` is JSON text.
    #[must_use]
    pub(crate) fn revoked(error: Arc<str>) -> Self {
        Self { status: Status::Revoked, result: None, error: Some(error), next: None }
    }

    /// The attempt failed, and another one follows: the one numbered `attempt`, at `due`. Its record is to be
    /// published after that.
    #[must_use]
    pub(crate) fn retry(attempt: u32, due: u64, error: Arc<str>) -> Self {
        Self::later(Status::Retrying, attempt, due, Some(error))
    }

    /// The same attempt is made at another time; `error` is why the attempt before it failed. Its record is to be
    /// published after that.
    #[must_use]
    pub(crate) fn snooze(attempt: u32, due: u64, error: Option<Arc<str>>) -> Self {
        Self::later(Status::Scheduled, attempt, due, error)
    }

    /// The run did not take place, or does not count: anybody may claim the task at once, for the same attempt.
    #[must_use]
    pub(crate) fn given_back() -> Self {
        Self { status: Status::Queued, result: None, error: None, next: None }
    }

    /// For a retry or a snooze: nothing is published, the same record asks again when it is due. Other ends stay as
    /// they are.
    #[must_use]
    pub(crate) fn in_place(mut self) -> Self {
        if let Some(next) = &mut self.next {
            next.in_place = true;
        }
        self
    }

    fn later(status: Status, attempt: u32, due: u64, error: Option<Arc<str>>) -> Self {
        Self { status, result: None, error, next: Some(NextRun { attempt, due, in_place: false }) }
    }

    /// Length of the result and the error, in bytes: what a call that carries this end has to transfer.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        [&self.result, &self.error].into_iter().flatten().map(|text| text.len()).sum()
    }

    /// The status that the task gets.
    #[must_use]
    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// JSON text of the result.
    #[must_use]
    pub(crate) fn result(&self) -> Option<&Arc<str>> {
        self.result.as_ref()
    }

    /// JSON text of the error.
    #[must_use]
    pub(crate) fn error(&self) -> Option<&Arc<str>> {
        self.error.as_ref()
    }

    /// The next run, of a retry or a snooze.
    #[must_use]
    pub(crate) fn next(&self) -> Option<NextRun> {
        self.next
    }

    /// What must be published, or must have been, before the offset of the task's record is completed.
    fn follow_up(&self) -> Option<FollowUp> {
        match self.next {
            Some(NextRun { in_place: true, .. }) => Some(FollowUp::Stay),
            Some(NextRun { attempt, due, .. }) => Some(FollowUp::Next { attempt, due }),
            None => (self.status == Status::Failure).then_some(FollowUp::Dead),
        }
    }

    /// Whether a task that this run does not hold is as it would be if this end had been recorded before.
    fn was_recorded(&self, state: &TaskState, ask: &ClaimRequest, held: LeaseProof) -> bool {
        let is_same = state.token == held.token;
        match (self.status, self.next) {
            // A revocation that came first gave the task a new token.
            (Status::Queued, _) => state.status == Status::Revoked || state.status == Status::Queued && is_same,
            (_, Some(NextRun { in_place: true, .. })) => is_same && state.stays_at(ask.seq),
            (_, Some(_)) => is_same && state.is_moved_from(ask.seq),
            (_, None) => is_same && state.status.is_terminal(),
        }
    }
}

/// The answer to the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// Readers can see it.
    Recorded,
    /// Only for a retry or a snooze: nothing changed, because the run was asked to end as revoked. Finish it so.
    Revoking,
    /// The token is no longer the task's: nothing changed, what this run did is not recorded.
    Stale,
}

impl TaskState {
    /// The run under the record of this `seq` ended, and the task has another one.
    fn reschedule(&mut self, seq: u64, end: &End, next: NextRun) {
        self.status = end.status;
        self.seq = if next.in_place { seq } else { seq + 1 };
        self.attempt = next.attempt;
        self.deliveries = 0;
        self.follow_up = end.follow_up();
        self.error.clone_from(&end.error);
        self.eta = Some(next.due);
        self.free();
    }
}

/// A run ended. The record is made again if the store has lost it, except to give the task back.
pub(crate) fn finish(
    slot: &mut Option<TaskState>, ask: &ClaimRequest, held: LeaseProof, end: &End, now_us: u64,
) -> Finished {
    let is_given_back = end.status == Status::Queued;
    let state = match slot {
        Some(state) if state.status == Status::Running && state.token == held.token => state,
        Some(state) if end.was_recorded(state, ask, held) => return Finished::Recorded,
        None if is_given_back => return Finished::Recorded,
        None if held.recent => slot.insert(remade(ask, held, now_us)),
        Some(_) | None => return Finished::Stale,
    };
    if let Some(next) = end.next {
        if state.revoke {
            return Finished::Revoking;
        }
        state.reschedule(ask.seq, end, next);
    } else if !is_given_back {
        state.result.clone_from(&end.result);
        state.error.clone_from(&end.error);
        state.follow_up = end.follow_up();
        state.end(end.status, now_us);
    } else if state.revoke {
        // A new token, so that the run which is cut off learns that it is stale.
        state.token = TaskState::next_token(Some(state), now_us);
        state.error = Some(revoked_error(state.attempt));
        state.end(Status::Revoked, now_us);
    } else {
        state.status = Status::Queued;
        state.progress = None;
        state.free();
    }
    Finished::Recorded
}
