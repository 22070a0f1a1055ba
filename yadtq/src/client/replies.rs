//! The loop that receives results and progress, and passes them to handles.
//!
//! ```text
//!  channel ──► receive ──────────────────────────────► handles
//!                 │ may have missed something             ▲
//!                 ▼                                       │
//!              requests ──► lookups of single tasks ──────┤
//!                           sweep, in slices ─────────────┘
//! ```
//! A message on the client's channel comes at once but may be lost; a lookup in the store is slower but reliable. So a
//! message resolves its handle at once, and all open handles are looked up every [`HANDLE_LOOKUP_INTERVAL`], and
//! whenever the channel reports that it may have missed a message. The three parts run at the same time: neither a message
//! nor the lookup of a new handle waits for the sweep.
//!
//! If the store does not answer, nothing is kept for later: every task that has to be looked up belongs to an open handle, and
//! the next sweep finds it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::waiting::{WaitOutcome, Waiting};
use crate::{
    core::{
        lifecycle::TaskState,
        names::{ClientId, TaskId},
    },
    error::Error,
    store::{Answers, Notice, NoticeReceiver, Reply, Report, Store, StoreError},
};

/// Interval at which the tasks of open handles are looked up, in case a message was lost.
const HANDLE_LOOKUP_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which tasks with a progress listener are looked up, in case a message was lost.
const PROGRESS_LOOKUP_INTERVAL: Duration = Duration::from_secs(3);
/// Delay before the store is asked again after an error.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Largest number of tasks in one lookup: one call of the store, so that others get their turn between two.
const LOOKUP_BATCH: usize = 256;

/// Runs until `stop`.
pub(super) async fn run(store: Arc<dyn Store>, client: ClientId, waiting: Arc<Waiting>, stop: CancellationToken) {
    let work = async {
        let channel = loop {
            match store.replies(&client).await {
                Ok(channel) => break channel,
                Err(error) => {
                    warn!(event = "replies_unavailable", %error, "cannot subscribe to results yet; will try again");
                    sleep(STORE_RETRY_DELAY).await;
                }
            }
        };
        let lookups = Lookups { store: &*store, client: &client, waiting: &waiting };
        tokio::join!(receive(&waiting, channel), lookups.requested(), lookups.sweep())
    };
    // It goes on until then.
    let _ = stop.run_until_cancelled(work).await;
}

/// Passes on what comes over the channel.
async fn receive(waiting: &Waiting, mut channel: Box<dyn NoticeReceiver>) -> Infallible {
    loop {
        match channel.next().await {
            Notice::Replies(replies) => {
                for reply in replies {
                    let reply = Arc::new(reply);
                    waiting.resolve(&reply.id, WaitOutcome::Ended(Arc::clone(&reply)));
                }
            }
            Notice::Progress(reports) => reports.into_iter().for_each(|report| waiting.progress.notify(report)),
            Notice::Ended(ids) => waiting.look_up(ids),
            Notice::Missed => waiting.look_up_all(),
            // Only workers act on this.
            Notice::Revoke(_)
            | Notice::OwnAgain
            | Notice::SlotsFree
            | Notice::Offer(_)
            | Notice::Declined(_)
            | Notice::NoSlot(_)
            | Notice::Completed(_)
            | Notice::FreeAgain(_) => {}
        }
    }
}

/// How many of the tasks in a lookup the store has answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Looked {
    Everything,
    Part,
    Nothing,
}

/// What looks tasks up.
#[derive(Clone, Copy)]
struct Lookups<'a> {
    store: &'a dyn Store,
    client: &'a ClientId,
    waiting: &'a Waiting,
}

impl Lookups<'_> {
    /// Looks up what is requested, and the tasks with a progress listener.
    async fn requested(self) -> Infallible {
        let mut progress = interval_at(Instant::now() + PROGRESS_LOOKUP_INTERVAL, PROGRESS_LOOKUP_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ids = tokio::select! {
                () = self.waiting.has_asked() => self.waiting.take_asked(),
                _ = progress.tick() => self.waiting.progress.ids(),
            };
            if self.ask(&ids).await != Looked::Everything {
                self.waiting.look_up_all();
            }
        }
    }

    /// Looks up all open handles, slice by slice: at first, because a task may have ended before the channel was open, then at
    /// intervals, and when something was missed.
    async fn sweep(self) -> Infallible {
        loop {
            let (mut last, mut looked) = (None, Looked::Everything);
            while looked != Looked::Nothing {
                let ids = self.waiting.open_after(last.as_ref(), LOOKUP_BATCH);
                last = ids.last().cloned();
                if last.is_none() {
                    break;
                }
                looked = looked.max(self.ask(&ids).await);
                yield_now().await;
            }
            let is_done = looked == Looked::Everything;
            let wait = if is_done { HANDLE_LOOKUP_INTERVAL } else { STORE_RETRY_DELAY };
            tokio::select! {
                () = sleep_until(Instant::now() + wait) => {}
                () = self.waiting.has_missed(), if is_done => {}
            }
        }
    }

    /// Looks up tasks, and resolves the handles of those that have ended. The outcomes of the others are published to this
    /// client's channel from then on; so is their progress, if somebody listens to it.
    async fn ask(self, ids: &[TaskId]) -> Looked {
        let is_watched = |id: &TaskId| self.waiting.progress.contains(id);
        let (watched, others): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(is_watched);
        let mut looked = Looked::Everything;
        for (ids, watch) in [(others, false), (watched, true)] {
            for ids in ids.chunks(LOOKUP_BATCH) {
                looked = looked.max(self.look_up(ids, watch).await);
            }
        }
        looked
    }

    async fn look_up(self, ids: &[TaskId], watch: bool) -> Looked {
        match self.read(ids, watch).await {
            Ok(states) => self.take(ids, states, watch),
            // Their results may be too large to arrive in time in one answer, or one of them is, which must not delay the others.
            Err(StoreError::Unavailable(_)) if ids.len() > 1 && self.store.connected_for().is_some() => {
                join_all(ids.chunks(1).map(|id| self.look_up_single(id, watch))).await;
                Looked::Part
            }
            Err(error) => {
                self.unanswered(ids, &error);
                Looked::Nothing
            }
        }
    }

    /// Looks up one task. If that fails, it is left to the next sweep.
    async fn look_up_single(self, id: &[TaskId], watch: bool) {
        match self.read(id, watch).await {
            Ok(states) => _ = self.take(id, states, watch),
            Err(error) => self.unanswered(id, &error),
        }
    }

    async fn read(self, ids: &[TaskId], watch: bool) -> Answers<Option<TaskState>> {
        match watch {
            true => self.store.watch(ids, self.client).await,
            false => self.store.read(ids, Some(self.client)).await,
        }
    }

    /// The store does not answer, or refuses: the tasks go on all the same, so their handles wait.
    fn unanswered(self, ids: &[TaskId], error: &StoreError) {
        if !error.is_outage() {
            warn!(event = "replies_unavailable", %error, tasks = ids.len(), "cannot look up results; will try again");
        }
        self.waiting.unanswered(ids);
    }

    fn take(self, ids: &[TaskId], states: Vec<Result<Option<TaskState>, StoreError>>, watch: bool) -> Looked {
        let (waiting, mut looked) = (self.waiting, Looked::Everything);
        for (id, state) in ids.iter().zip(states) {
            match state {
                Ok(Some(state)) => {
                    if let Some(reply) = Reply::of(id, &state) {
                        waiting.resolve(id, WaitOutcome::Ended(Arc::new(reply)));
                        continue;
                    }
                    waiting.seen(id);
                    if let Some(progress) = state.progress.filter(|_| watch) {
                        waiting.progress.notify(Report { id: id.clone(), token: state.token, progress });
                    }
                }
                Ok(None) => waiting.resolve(id, WaitOutcome::Missing),
                // A server of a cluster is away; the other tasks wait for nothing.
                Err(error) if error.is_outage() => {
                    looked = Looked::Part;
                    waiting.unanswered(std::slice::from_ref(id));
                }
                Err(error) => waiting.resolve(id, WaitOutcome::Failed(Error::Store(error))),
            }
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::SystemClock,
        core::lifecycle::Status,
        store::{Channels, Submission, Tasks, memory::MemoryStore},
    };

    #[tokio::test]
    async fn a_message_resolves_its_handle_without_any_lookup() {
        let (store, waiting, client) = (MemoryStore::new(SystemClock::shared()), Arc::default(), ClientId::from("c"));
        let channel = store.replies(&client).await.unwrap();
        let id = TaskId::new();
        let mut waiter = Waiting::sending(&waiting, &id);
        let (task, queue) = ("add".into(), "default".into());
        let submission = Submission { id: id.clone(), task, queue, reply_to: Some(client), eta: None };
        store.submit(&[submission]).await.unwrap();
        store.revoke(&[id]).await.unwrap();
        let outcome = tokio::select! {
            // The handle waits before the message comes: one that is awaited later looks the task up once more.
            biased;
            outcome = &mut waiter => outcome,
            never = receive(&waiting, channel) => match never {},
        };
        assert!(matches!(outcome, WaitOutcome::Ended(reply) if reply.status == Status::Revoked));
    }
}
