//! Who waits for which task in this process.
//!
//! Every open handle holds an [`Entry`]; clones and handles by the same id share it. The reply loop settles
//! entries; the last handle that goes takes its entry out of the table.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::{FutureExt, Shared};
use tokio::sync::{mpsc, oneshot};

use crate::{
    core::names::TaskId,
    error::Error,
    store::{Reply, ttl},
};

/// What an entry can be told.
#[derive(Clone, Debug)]
pub(crate) enum Settled {
    /// The task ended.
    Ended(Arc<Reply>),
    /// The store has nothing of the task.
    Missing,
    /// The store cannot tell.
    Failed(Error),
}

/// The table of open handles.
#[derive(Debug)]
pub(crate) struct Waiting {
    entries: Mutex<HashMap<TaskId, Weak<Entry>>>,
    /// Ids by handles that nobody's reply channel knows of yet.
    attach: mpsc::UnboundedSender<TaskId>,
}

#[derive(Debug)]
struct Entry {
    id: TaskId,
    /// When this client sent the task: until its record would have expired, a missing record means that the
    /// store lost it and the log still has it.
    sent: Option<Instant>,
    attached: AtomicBool,
    tell: Mutex<Option<oneshot::Sender<Settled>>>,
    told: Shared<oneshot::Receiver<Settled>>,
    waiting: Arc<Waiting>,
}

impl Waiting {
    /// An empty table, and the ids that have to be attached to this client's reply channel.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<TaskId>) {
        let (attach, attaching) = mpsc::unbounded_channel();
        (Arc::new(Self { entries: Mutex::default(), attach }), attaching)
    }

    /// Waits for a task that this client sends: its record names the reply channel.
    pub(crate) fn sending(self: &Arc<Self>, id: &TaskId) -> Waiter {
        self.enter(id, Some(Instant::now()))
    }

    /// Waits for a task that somebody sent.
    pub(crate) fn by_id(self: &Arc<Self>, id: &TaskId) -> Waiter {
        self.enter(id, None)
    }

    fn enter(self: &Arc<Self>, id: &TaskId, sent: Option<Instant>) -> Waiter {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(id).and_then(Weak::upgrade) {
            return Waiter::new(entry);
        }
        let (tell, told) = oneshot::channel();
        let entry = Arc::new(Entry {
            id: id.clone(),
            sent,
            attached: AtomicBool::new(sent.is_some()),
            tell: Mutex::new(Some(tell)),
            told: told.shared(),
            waiting: Arc::clone(self),
        });
        entries.insert(id.clone(), Arc::downgrade(&entry));
        Waiter::new(entry)
    }

    /// Tells whoever waits for the task. Nobody may.
    pub(crate) fn settle(&self, id: &TaskId, settled: Settled) {
        let entry = self.lock().get(id).and_then(Weak::upgrade);
        let Some(entry) = entry else { return };
        if matches!(settled, Settled::Missing) && entry.is_fresh() {
            return;
        }
        let tell = entry.tell.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tell) = tell {
            // Cannot fail: the entry holds the receiver.
            let _ = tell.send(settled);
        }
    }

    /// The tasks that somebody still waits for.
    pub(crate) fn open(&self) -> Vec<TaskId> {
        let entries = self.lock();
        let open = entries.iter().filter(|(_, entry)| entry.upgrade().is_some_and(|entry| entry.is_open()));
        open.map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Weak<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_fresh(&self) -> bool {
        self.sent.is_some_and(|at| at.elapsed() < Duration::from_millis(ttl::RESULT))
    }

    fn is_open(&self) -> bool {
        self.attached.load(Ordering::Acquire) && self.told.peek().is_none()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut entries = self.waiting.lock();
        // A handle made meanwhile may have put another entry in this one's place.
        if entries.get(&self.id).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.id);
        }
    }
}

/// One handle's place in the table.
pub(crate) struct Waiter {
    entry: Arc<Entry>,
    told: Shared<oneshot::Receiver<Settled>>,
}

impl Waiter {
    fn new(entry: Arc<Entry>) -> Self {
        Self { told: entry.told.clone(), entry }
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.entry.id
    }

    /// Whether this client sent the task so recently that its record cannot have expired.
    pub(crate) fn is_fresh(&self) -> bool {
        self.entry.is_fresh()
    }
}

impl Clone for Waiter {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.entry))
    }
}

impl Future for Waiter {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        if !self.entry.attached.swap(true, Ordering::AcqRel) {
            // Fails only when the client's loop has ended with its runtime: then nobody polls either.
            let _ = self.entry.waiting.attach.send(self.entry.id.clone());
        }
        Pin::new(&mut self.told).poll(cx).map(|told| told.unwrap_or(Settled::Missing))
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiter").field(&self.entry.id).finish()
    }
}
