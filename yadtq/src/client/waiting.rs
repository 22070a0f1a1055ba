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
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::{FutureExt, Shared};
use tokio::sync::{mpsc, oneshot};

use super::progress::Watching;
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
    /// Those who listen while a task runs.
    pub(super) progress: Watching,
}

#[derive(Debug)]
struct Entry {
    id: TaskId,
    /// When this client sent the task: until its record would have expired, a missing record means that the
    /// store lost it and the log still has it.
    sent: OnceLock<Instant>,
    attached: AtomicBool,
    tell: Mutex<Option<oneshot::Sender<Settled>>>,
    told: Shared<oneshot::Receiver<Settled>>,
    waiting: Arc<Waiting>,
}

impl Waiting {
    /// An empty table, and the ids that have to be attached to this client's reply channel.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<TaskId>) {
        let (attach, attaching) = mpsc::unbounded_channel();
        (Arc::new(Self { entries: Mutex::default(), attach, progress: Watching::default() }), attaching)
    }

    /// Waits for a task that this client sends: its record names the reply channel.
    pub(crate) fn sending(self: &Arc<Self>, id: &TaskId) -> Waiter {
        let waiter = self.by_id(id);
        waiter.entry.sent.get_or_init(Instant::now);
        waiter.entry.attached.store(true, Ordering::Release);
        waiter
    }

    /// Waits for a task that somebody sent.
    pub(crate) fn by_id(self: &Arc<Self>, id: &TaskId) -> Waiter {
        let mut entries = self.lock();
        let present = entries.get(id).and_then(Weak::upgrade);
        if let Some(entry) = present.as_ref().filter(|entry| entry.is_useful()) {
            return Waiter::new(Arc::clone(entry));
        }
        let (tell, told) = oneshot::channel();
        let entry = Arc::new(Entry {
            id: id.clone(),
            sent: OnceLock::new(),
            attached: AtomicBool::new(false),
            tell: Mutex::new(Some(tell)),
            told: told.shared(),
            waiting: Arc::clone(self),
        });
        entries.insert(id.clone(), Arc::downgrade(&entry));
        // In this order: an entry takes the lock when it is dropped.
        drop((entries, present));
        Waiter::new(entry)
    }

    /// Tells whoever waits for the task. Nobody may.
    pub(crate) fn settle(&self, id: &TaskId, settled: Settled) {
        let entry = self.lock().get(id).and_then(Weak::upgrade);
        let Some(entry) = entry else { return };
        if matches!(settled, Settled::Missing) && entry.is_fresh() {
            return;
        }
        let tell = entry.tell().take();
        if let Some(tell) = tell {
            // Cannot fail: the entry holds the receiver.
            let _ = tell.send(settled);
        }
    }

    /// The tasks that somebody still waits for.
    pub(crate) fn open(&self) -> Vec<TaskId> {
        let entries: Vec<Arc<Entry>> = self.lock().values().filter_map(Weak::upgrade).collect();
        // Not under the table's lock, which an entry takes when it is dropped.
        entries.iter().filter(|entry| entry.is_open()).map(|entry| entry.id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Weak<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_fresh(&self) -> bool {
        self.sent.get().is_some_and(|at| at.elapsed() < Duration::from_millis(ttl::RESULT))
    }

    /// Somebody has to be told, and the reply channel is known to the record.
    fn is_open(&self) -> bool {
        self.attached.load(Ordering::Acquire) && self.tell().is_some()
    }

    /// Not one that was told that there is no such task, before there was, or that it cannot be read.
    fn is_useful(&self) -> bool {
        self.tell().is_some() || matches!(self.told.clone().now_or_never(), Some(Ok(Settled::Ended(_))))
    }

    fn tell(&self) -> MutexGuard<'_, Option<oneshot::Sender<Settled>>> {
        self.tell.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// How the task ended, if that has been told.
    pub(crate) fn ended(&self) -> Option<Arc<Reply>> {
        match self.told.clone().now_or_never() {
            Some(Ok(Settled::Ended(reply))) => Some(reply),
            _ => None,
        }
    }

    /// Has the task looked up, in case it has ended already.
    pub(crate) fn look(&self) {
        // Fails only when the client is gone.
        let _ = self.entry.waiting.attach.send(self.entry.id.clone());
    }

    /// Has the task looked up, and told to this client's reply channel.
    pub(super) fn attach(&self) {
        self.entry.attached.store(true, Ordering::Release);
        self.look();
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
            self.look();
        }
        Pin::new(&mut self.told).poll(cx).map(|told| told.unwrap_or(Settled::Missing))
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiter").field(&self.entry.id).finish()
    }
}
