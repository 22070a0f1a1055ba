//! What subscriptions and the consumer ask of the assigner.

use std::sync::{Arc, mpsc::Sender};

use tokio::sync::oneshot;

use super::{
    super::BrokerError,
    commits::{Commit, Commits},
    slot::Slot,
};

/// What the thread is asked to do.
pub(super) enum Command {
    /// Reads these partitions of a topic.
    Assign(Arc<str>, Vec<Arc<Slot>>),
    /// Reads these partitions of a topic no more.
    Unassign(Arc<str>, Vec<i32>),
    Commit(Vec<Commit>, Option<oneshot::Sender<Result<(), BrokerError>>>),
    /// The client is in librdkafka's fatal state, for this reason: replaces it.
    Rebuild(String),
}

/// The way to the assigner, and what it commits.
pub(super) struct Commands {
    pub(super) commits: Commits,
    sender: Sender<Command>,
}

impl Commands {
    pub(super) fn new(sender: Sender<Command>) -> Self {
        Self { commits: Commits::default(), sender }
    }

    /// Asks the assigner, which lives for as long as the consumer, unless that is closed.
    pub(super) fn send(&self, command: Command) {
        let _ = self.sender.send(command);
    }
}
