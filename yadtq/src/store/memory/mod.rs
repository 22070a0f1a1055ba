//! The store in this process's memory: the pure transitions under a lock.
//!
//! It never goes away and forgets nothing before its TTL, so what the contract says of a broken connection
//! cannot be seen here. Clients and workers of one process share it through an `Arc`.

mod fleet;
mod limits;
mod slots;
mod tasks;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Answers, Channels, Notice, NoticeReceiver, PeriodicTasks, Reservation, Store, StoreError, StoreInfo, UniqueKeys,
    mailbox::Mailbox, ttl,
};
use crate::{
    clock::Clock,
    core::{
        names::{ClientId, TaskId, WorkerId},
        slots::IdleSlots,
        ticks::{self, Declaration, Declared, Known},
        unique::{self, Reserved, Taken, UniqueKey},
    },
};

/// A store in memory.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

impl MemoryStore {
    /// An empty store that takes the time from this clock.
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, inner: Mutex::default() })
    }

    /// The state and the time at which it is looked at.
    fn lock(&self) -> (MutexGuard<'_, Inner>, u64) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner, self.clock.now_us())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn ping(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo { summary: "in the memory of this process".to_owned(), warnings: Vec::new() })
    }

    async fn memory(&self) -> Vec<super::Memory> {
        Vec::new()
    }

    fn connected_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }

    async fn now_us(&self) -> Result<u64, StoreError> {
        Ok(self.clock.now_us())
    }
}

#[async_trait]
impl UniqueKeys for MemoryStore {
    async fn reserve(&self, keys: &[Reservation]) -> Answers<Reserved> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        let reserve = |Reservation { key, id, ttl_ms }: &Reservation| {
            let (slot, expires_ms) = inner.unique(key, now_ms);
            if slot.is_none() {
                *expires_ms = now_ms.saturating_add(*ttl_ms);
            }
            Ok(unique::reserve(slot, id))
        };
        Ok(keys.iter().map(reserve).collect())
    }

    async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool> {
        let (mut inner, now_us) = self.lock();
        let confirm = |(key, id): &(UniqueKey, TaskId)| Ok(unique::confirm(inner.unique(key, now_us / 1_000).0, id));
        Ok(keys.iter().map(confirm).collect())
    }
}

#[async_trait]
impl PeriodicTasks for MemoryStore {
    async fn declare(&self, tasks: &[Declaration]) -> Answers<Known> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        inner.periodics.retain(|_, periodic| periodic.expires_ms > now_ms);
        let declare = |by: &Declaration| {
            let entry = inner.periodics.entry(Arc::clone(&by.name)).or_default();
            entry.expires_ms = now_ms + by.ttl_ms(ttl::WAITING);
            Ok(ticks::declare(&mut entry.state, by))
        };
        Ok(tasks.iter().map(declare).collect())
    }

    async fn periodics(&self) -> Result<Vec<(Arc<str>, Declared)>, StoreError> {
        let (inner, now_us) = self.lock();
        let live = inner.periodics.iter().filter(|(_, periodic)| periodic.expires_ms > now_us / 1_000);
        Ok(live.filter_map(|(name, periodic)| Some((Arc::clone(name), periodic.state.clone()?))).collect())
    }
}

#[async_trait]
impl Channels for MemoryStore {
    async fn control(&self, worker: &WorkerId) -> Result<Box<dyn NoticeReceiver>, StoreError> {
        self.replies(&control(worker)).await
    }

    async fn replies(&self, client: &ClientId) -> Result<Box<dyn NoticeReceiver>, StoreError> {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.miss();
        let (mut inner, _) = self.lock();
        inner.mailboxes.retain(|_, mailbox| mailbox.strong_count() > 0);
        inner.mailboxes.insert(Arc::clone(client), Arc::downgrade(&mailbox));
        Ok(Box::new(MemoryNoticeReceiver(mailbox)))
    }
}

/// The mailbox of a worker; no client has such an id.
fn control(worker: &str) -> ClientId {
    format!("control {worker}").into()
}

struct MemoryNoticeReceiver(Arc<Mailbox>);

#[async_trait]
impl NoticeReceiver for MemoryNoticeReceiver {
    async fn next(&mut self) -> Notice {
        self.0.next().await
    }
}

#[derive(Debug, Default)]
struct Inner {
    tasks: HashMap<TaskId, tasks::Entry>,
    /// Number of tasks and keys above which expired ones are thrown out.
    sweep_at: usize,
    /// Which key is whose, and until when in ms.
    uniques: HashMap<UniqueKey, (Option<Taken>, u64)>,
    mailboxes: HashMap<ClientId, Weak<Mailbox>>,
    fleet: fleet::Fleet,
    periodics: BTreeMap<Arc<str>, Periodic>,
    limits: limits::Usage,
    /// By queue.
    idle: HashMap<Arc<str>, IdleSlots>,
}

#[derive(Debug, Default)]
struct Periodic {
    state: Option<Declared>,
    expires_ms: u64,
}

impl Inner {
    /// What is kept of a key, and until when.
    fn unique(&mut self, key: &UniqueKey, now_ms: u64) -> (&mut Option<Taken>, &mut u64) {
        self.sweep(now_ms);
        let (slot, expires_ms) = self.uniques.entry(key.clone()).or_default();
        if *expires_ms <= now_ms {
            *slot = None;
        }
        (slot, expires_ms)
    }

    /// Throws out what has expired, each time the number of tasks has doubled: a constant cost per task.
    fn sweep(&mut self, now_ms: u64) {
        const MIN_SWEEP: usize = 1_024;
        if self.tasks.len() + self.uniques.len() > self.sweep_at.max(MIN_SWEEP) {
            self.tasks.retain(|_, entry| entry.expires_ms > now_ms);
            self.uniques.retain(|_, (_, expires_ms)| *expires_ms > now_ms);
            self.sweep_at = 2 * (self.tasks.len() + self.uniques.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        store::{Submission, Tasks},
    };

    #[tokio::test]
    async fn what_has_expired_is_gone_and_takes_no_memory() {
        let clock = Arc::new(ManualClock::at_us(1_000_000));
        let store = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let submission =
            || Submission { id: TaskId::new(), task: "add".into(), queue: "default".into(), reply_to: None, eta: None };
        let tasks = (0..3_000).map(|_| submission()).collect::<Vec<_>>();
        store.submit(&tasks).await.expect("in memory");
        let first = [tasks[0].id.clone()];
        clock.advance(Duration::from_millis(ttl::WAITING - 1));
        assert!(matches!(store.read(&first, None).await.expect("in memory")[..], [Ok(Some(_))]));
        clock.advance(Duration::from_millis(1));
        assert!(matches!(store.read(&first, None).await.expect("in memory")[..], [Ok(None)]));
        for _ in 0..3 {
            store.submit(&(0..3_000).map(|_| submission()).collect::<Vec<_>>()).await.expect("in memory");
            clock.advance(Duration::from_millis(ttl::WAITING));
        }
        assert!(store.lock().0.tasks.len() <= 6_000);
    }
}

#[cfg(test)]
mod testing {
    use std::collections::HashMap;

    use super::{MemoryStore, async_trait, ttl};
    use crate::{
        core::{lifecycle::TaskState, names::TaskId},
        store::conformance::Subject,
    };

    impl MemoryStore {
        /// Forgets all tasks, as a store does that has lost its data.
        pub(crate) fn forget_tasks(&self) {
            self.lock().0.tasks = HashMap::new();
        }

        /// When the record of a task is forgotten, in ms.
        #[cfg(feature = "redis")]
        pub(in crate::store) fn expires_ms(&self, id: &TaskId) -> Option<u64> {
            let (inner, now_us) = self.lock();
            inner.tasks.get(id).map(|entry| entry.expires_ms).filter(|expires_ms| *expires_ms > now_us / 1_000)
        }
    }

    #[async_trait]
    impl Subject for MemoryStore {
        async fn plant(&self, id: &TaskId, state: Option<TaskState>) {
            let (mut inner, now_us) = self.lock();
            inner.tasks.remove(id);
            inner.change(id, now_us, |entry| {
                entry.state = state;
                ((), Some(ttl::RESULT))
            });
        }

        async fn ttl_ms(&self, id: &TaskId) -> u64 {
            let (inner, now_us) = self.lock();
            inner.tasks[id].expires_ms - now_us / 1_000
        }

        async fn spoil(&self, _: &TaskId) -> bool {
            false
        }

        async fn forget_owners(&self, topic: &str) {
            self.lock().0.fleet.forget_owners(topic);
        }

        async fn spoil_owners(&self, _: &str) -> bool {
            false
        }
    }
}
