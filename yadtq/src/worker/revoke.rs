//! Ends running tasks that somebody revoked: pushed over the worker's control channel, and seen with the next
//! extension of the lease if the push is lost.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{
    control::Control,
    step::{Due, Step},
};
use crate::{
    core::{lifecycle::Token, names::TaskId},
    store::{Notice, Replies},
    wire::failure::ErrorKind,
};

/// What the error of a revoked task says.
pub(super) const REASON: &str = "it was asked to end";

/// A task that needs longer is not waited for.
const MOST_GRACE: Duration = Duration::from_secs(24 * 3_600);

/// What the control channel told, and the channel to listen to again.
pub(super) struct Order {
    channel: Box<dyn Replies>,
    notice: Notice,
}

impl Control {
    /// Opens the control channel. Without it, extensions tell the same a little later.
    pub(super) fn listen(&mut self) {
        let (store, worker) = (Arc::clone(&self.store), Arc::clone(&self.id));
        self.calls.push(Box::pin(async move {
            match store.control(&worker).await {
                Ok(channel) => next(channel).await,
                Err(error) => {
                    warn!(event = "control_unavailable", %worker, %error, "revocations are heard of with a delay");
                    Step::Inspected
                }
            }
        }));
    }

    pub(super) fn ordered(&mut self, Order { channel, notice }: Order) {
        self.calls.push(Box::pin(next(channel)));
        match notice {
            Notice::Revoke(ids) => {
                for id in ids {
                    if let Some(token) = self.runs.get(&id).map(|run| run.token) {
                        self.revoke(&id, token);
                    }
                }
            }
            Notice::Missed => self.extend_all(),
            Notice::Replies(_) | Notice::Ended(_) | Notice::Progress(_) => {}
        }
    }

    /// Asks a run to end, and sees to it that an `async` one does.
    pub(super) fn revoke(&mut self, id: &TaskId, token: Token) {
        let Some(run) = self.runs.get_mut(id).filter(|run| run.token == token && !run.revoking) else { return };
        info!(event = "task_revoking", worker = %self.id, task_id = %id, task = %run.job.ask.task, "asked to end");
        run.revoking = true;
        run.cancel.cancel();
        if run.started.is_none() {
            self.slots.retain_granted(|granted| granted != id);
            return self.end_revoked(id.clone(), token, ErrorKind::Revoked, REASON);
        }
        let grace = self.plan.options.revoke_grace.min(MOST_GRACE);
        self.later.insert(Due::Drop(id.clone(), token), grace);
    }

    /// Its grace is over. A blocking task goes on until it sees that it should end.
    pub(super) fn drop_run(&mut self, id: &TaskId, token: Token) {
        if let Some(run) = self.runs.get(id).filter(|run| run.token == token) {
            run.stop();
        }
    }
}

async fn next(mut channel: Box<dyn Replies>) -> Step {
    let notice = channel.next().await;
    Step::Ordered(Order { channel, notice })
}
