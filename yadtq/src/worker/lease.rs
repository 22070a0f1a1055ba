//! Extends the leases of what still runs. Short tasks end before their first extension, and never pay.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    control::{Control, LEASE},
    execute::millis,
    step::Step,
};
use crate::{
    core::{
        lifecycle::{Extended, Token},
        names::TaskId,
    },
    store::{Answers, Lease},
};

/// Leases confirmed more recently than this are left alone.
const YOUNG: Duration = Duration::from_millis(500);

/// A granted task that has not found a slot by then is given back.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// A batch of extensions, and its answers.
pub(super) struct Extensions {
    leases: Vec<Lease>,
    sent: Instant,
    answers: Answers<Extended>,
}

impl Control {
    pub(super) fn extend(&mut self) {
        // Claimed ahead for a pace that did not last: others may have a free slot.
        if self.store.connected_for().is_some() {
            self.give_back_waiting(|run| run.granted.elapsed() >= IMPATIENCE);
        }
        let due = self.runs.values().filter(|run| run.confirmed.elapsed() >= YOUNG);
        let leases = due.map(|run| run.lease()).collect();
        self.send_extensions(leases);
        self.keep_places();
    }

    /// Extends young leases too, to hear which tasks are to end.
    pub(super) fn extend_all(&mut self) {
        let leases = self.runs.values().map(|run| run.lease()).collect();
        self.send_extensions(leases);
    }

    fn send_extensions(&mut self, leases: Vec<Lease>) {
        if self.extending || leases.is_empty() {
            return;
        }
        let (store, worker) = (Arc::clone(&self.store), Arc::clone(&self.id));
        self.extending = true;
        self.calls.push(Box::pin(async move {
            let sent = Instant::now();
            let answers = store.extend(&worker, millis(LEASE), &leases).await;
            Step::Extended(Extensions { leases, sent, answers })
        }));
    }

    pub(super) fn extended(&mut self, Extensions { leases, sent, answers }: Extensions) {
        self.extending = false;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                warn!(event = "leases_not_extended", worker = %self.id, tasks = leases.len(), %error, "trying again");
                return;
            }
        };
        for (lease, answer) in leases.iter().zip(answers) {
            let (id, token) = (&lease.id, lease.held.token);
            match answer {
                Ok(Extended::Live) => self.confirm(id, token, sent),
                Ok(Extended::Revoking) => {
                    self.confirm(id, token, sent);
                    self.revoke(id, token);
                }
                Ok(Extended::Lost) => self.lost(id, token),
                Err(error) => {
                    warn!(event = "leases_not_extended", worker = %self.id, task_id = %id, %error, "trying again")
                }
            }
        }
    }

    fn confirm(&mut self, id: &TaskId, token: Token, sent: Instant) {
        if let Some(run) = self.runs.get_mut(id).filter(|run| run.token == token) {
            run.confirmed = sent;
        }
    }

    /// Tells a task that it should end: another run has it. Not one that has ended and is about to be recorded.
    fn lost(&self, id: &TaskId, token: Token) {
        let ended = self.endings.iter().any(|ending| ending.is(id, token));
        let Some(run) = self.runs.get(id).filter(|run| run.token == token && !ended) else { return };
        if !run.cancel.is_cancelled() {
            debug!(event = "task_cancelled", worker = %self.id, task_id = %id, why = "its lease is lost", "asked to end");
            run.cancel.cancel();
        }
    }
}
