//! The table of the tasks that handles in this process wait for.
//!
//! Every open handle holds an [`Entry`]; clones, and other handles with the same id, share it. The reply loop resolves
//! entries. The last handle that is dropped removes its entry from the table.
//!
//! ```text
//!  open ──── ended, missing, failed ────► resolved
//!   ▲                                        │
//!   └── awaited again, unless it succeeded ──┘   (an operator may have replayed the task)
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    ops::Bound,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::watching::Watching;
use crate::{
    core::{lifecycle::Status, names::TaskId},
    error::Error,
    store::{Reply, ttl},
};

/// The most tasks that wait for a lookup of their own. Beyond that, all open handles are looked up.
const MAX_ASKED: usize = 10_000;

/// What a waiting handle learns in the end.
#[derive(Clone, Debug)]
pub(crate) enum WaitOutcome {
    /// The task has ended.
    Ended(Arc<Reply>),
    /// The store does not know the task.
    Missing,
    /// The store answered with an error.
    Failed(Error),
}

impl WaitOutcome {
    fn ended(&self) -> Option<&Arc<Reply>> {
        match self {
            Self::Ended(reply) => Some(reply),
            Self::Missing | Self::Failed(_) => None,
        }
    }

    /// Whether nothing can follow: what has succeeded cannot be replayed.
    fn is_final(&self) -> bool {
        self.ended().is_some_and(|reply| reply.status == Status::Success)
    }
}

/// The table of open handles.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// In the order of ids, so that a sweep can go through it in slices.
    entries: Mutex<BTreeMap<TaskId, Weak<Entry>>>,
    /// Tasks to look up, and whose outcomes shall be published to this client's reply channel from now on.
    asked: Mutex<Vec<TaskId>>,
    has_asked: Notify,
    /// Signals that all open handles are to be looked up.
    has_missed: Notify,
    /// The tasks with a progress listener.
    pub(super) progress: Watching,
}

#[derive(Debug)]
struct Entry {
    id: TaskId,
    /// When this client sent the task. If the store does not know the task before a result could have expired, the store
    /// has lost it, and Kafka still has it.
    sent: OnceLock<Instant>,
    /// Whether the outcome is published to this client's reply channel, or will be after the next lookup.
    attached: AtomicBool,
    state: Mutex<State>,
    /// Number of waiters so far, which names the next one.
    waiters: AtomicU64,
    waiting: Arc<Waiting>,
}

#[derive(Debug)]
enum State {
    Open(Open),
    Resolved(WaitOutcome),
}

#[derive(Debug, Default)]
struct Open {
    /// How the task had ended before it was awaited again.
    before: Option<Arc<Reply>>,
    /// When the store last knew the task, which had not ended.
    seen: Option<Instant>,
    /// Whether the store has lost the task since then.
    is_lost: bool,
    wakers: HashMap<u64, Waker>,
}

impl Open {
    /// Whether a task that the store does not know must exist: it was there so recently that its end could not be forgotten.
    fn must_exist(&self) -> bool {
        let within = |ms| self.seen.is_some_and(|at| at.elapsed() < Duration::from_millis(ms));
        within(ttl::MARKER) || self.is_lost && within(ttl::RESULT)
    }
}

impl Waiting {
    /// Waits for a task that this client sends. Its record already names this client's reply channel.
    pub(crate) fn sending(self: &Arc<Self>, id: &TaskId) -> Waiter {
        let waiter = self.by_id(id);
        waiter.entry.sent.get_or_init(Instant::now);
        waiter.entry.attached.store(true, Ordering::Release);
        waiter
    }

    /// Waits for a task that any client sent.
    pub(crate) fn by_id(self: &Arc<Self>, id: &TaskId) -> Waiter {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(id).and_then(Weak::upgrade) {
            return Waiter { entry, slot: None };
        }
        let entry = Arc::new(Entry {
            id: id.clone(),
            sent: OnceLock::new(),
            attached: AtomicBool::new(false),
            state: Mutex::new(State::Open(Open::default())),
            waiters: AtomicU64::new(0),
            waiting: Arc::clone(self),
        });
        entries.insert(id.clone(), Arc::downgrade(&entry));
        drop(entries);
        Waiter { entry, slot: None }
    }

    /// Passes the outcome to whoever waits for the task, if anybody does.
    pub(crate) fn resolve(&self, id: &TaskId, outcome: WaitOutcome) {
        if let Some(entry) = self.entry(id) {
            entry.resolve(outcome);
        }
    }

    /// Notes that the store knows the task, and that it has not ended.
    pub(super) fn seen(&self, id: &TaskId) {
        let Some(entry) = self.entry(id) else { return };
        if let State::Open(open) = &mut *entry.state() {
            (open.seen, open.is_lost) = (Some(Instant::now()), false);
        }
    }

    /// Notes that the store cannot be asked about these tasks now. A handle that was awaited again gets what it got before.
    pub(super) fn unanswered(&self, ids: &[TaskId]) {
        for entry in ids.iter().filter_map(|id| self.entry(id)) {
            let before = match &*entry.state() {
                State::Open(open) => open.before.clone(),
                State::Resolved(_) => None,
            };
            if let Some(before) = before {
                entry.resolve(WaitOutcome::Ended(before));
            }
        }
    }

    /// At most `most` tasks for which somebody still waits, those behind `after` in the order of their ids.
    pub(super) fn open_after(&self, after: Option<&TaskId>, most: usize) -> Vec<TaskId> {
        let (mut open, mut last) = (Vec::new(), after.cloned());
        while open.len() < most {
            let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let entries = self.lock();
            let slice = entries.range::<TaskId, _>((from, Bound::Unbounded)).take(most);
            let slice: Vec<_> = slice.map(|(id, entry)| (id.clone(), entry.upgrade())).collect();
            // An entry takes the table's lock when it is dropped.
            drop(entries);
            let Some((id, _)) = slice.last() else { break };
            last = Some(id.clone());
            let is_open = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| entry.is_open());
            open.extend(slice.into_iter().filter(|(_, entry)| is_open(entry)).map(|(id, _)| id));
        }
        open
    }

    /// Requests lookups of these tasks.
    pub(super) fn look_up(&self, ids: impl IntoIterator<Item = TaskId>) {
        let mut asked = self.asked();
        for id in ids {
            if asked.len() >= MAX_ASKED {
                self.look_up_all();
                break;
            }
            asked.push(id);
        }
        self.has_asked.notify_one();
    }

    /// Requests a lookup of all open handles.
    pub(super) fn look_up_all(&self) {
        self.has_missed.notify_one();
    }

    /// Takes the lookups that were requested.
    pub(super) fn take_asked(&self) -> Vec<TaskId> {
        std::mem::take(&mut *self.asked())
    }

    /// Waits until lookups are requested. Cancel safe.
    pub(super) async fn has_asked(&self) {
        self.has_asked.notified().await;
    }

    /// Waits until a lookup of all open handles is requested. Cancel safe.
    pub(super) async fn has_missed(&self) {
        self.has_missed.notified().await;
    }

    fn entry(&self, id: &TaskId) -> Option<Arc<Entry>> {
        self.lock().get(id).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Weak<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Vec<TaskId>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_fresh(&self) -> bool {
        self.sent.get().is_some_and(|at| at.elapsed() < Duration::from_millis(ttl::RESULT))
    }

    /// Whether the entry is not resolved, and the outcome is published to this client's reply channel.
    fn is_open(&self) -> bool {
        self.attached.load(Ordering::Acquire) && matches!(&*self.state(), State::Open(_))
    }

    fn resolve(&self, outcome: WaitOutcome) {
        let mut state = self.state();
        let open = match &mut *state {
            State::Open(open) => open,
            // The task has had another run since then.
            State::Resolved(before) if !before.is_final() && outcome.ended().is_some() => {
                *before = outcome;
                return;
            }
            State::Resolved(_) => return,
        };
        let outcome = match outcome {
            WaitOutcome::Missing if open.must_exist() => {
                open.is_lost = true;
                return;
            }
            WaitOutcome::Missing | WaitOutcome::Failed(_) if open.before.is_some() => {
                open.before.take().map_or(outcome, WaitOutcome::Ended)
            }
            WaitOutcome::Missing if self.is_fresh() => return,
            outcome => outcome,
        };
        let wakers = std::mem::take(&mut open.wakers);
        *state = State::Resolved(outcome);
        drop(state);
        wakers.into_values().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut entries = self.waiting.lock();
        // A handle that was made in the meantime may have replaced this entry.
        if entries.get(&self.id).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.id);
        }
    }
}

/// What one handle waits on: a future of the entry's outcome. It may be awaited any number of times.
pub(crate) struct Waiter {
    entry: Arc<Entry>,
    /// Names its waker in the entry while it waits.
    slot: Option<u64>,
}

impl Waiter {
    pub(crate) fn id(&self) -> &TaskId {
        &self.entry.id
    }

    /// How the task ended, as far as that is known here. It may have had another run since then, unless it succeeded.
    pub(crate) fn ended(&self) -> Option<Arc<Reply>> {
        match &*self.entry.state() {
            State::Resolved(outcome) => outcome.ended().cloned(),
            State::Open(open) => open.before.clone(),
        }
    }

    /// Requests a lookup of the task, in case it has already ended.
    pub(crate) fn look(&self) {
        self.entry.waiting.look_up([self.entry.id.clone()]);
    }

    /// Requests a lookup of the task, and that its outcome is published to this client's reply channel.
    pub(super) fn attach(&self) {
        self.entry.attached.store(true, Ordering::Release);
        self.look();
    }

    /// Whether this client sent the task so recently that its hash in Redis cannot have expired.
    pub(crate) fn is_fresh(&self) -> bool {
        self.entry.is_fresh()
    }
}

impl Clone for Waiter {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), slot: None }
    }
}

impl Future for Waiter {
    type Output = WaitOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<WaitOutcome> {
        let Self { entry, slot } = &mut *self;
        let mut state = entry.state();
        if let State::Resolved(outcome) = &*state {
            if slot.is_some() || outcome.is_final() {
                *slot = None;
                return Poll::Ready(outcome.clone());
            }
            let before = outcome.ended().cloned();
            *state = State::Open(Open { before, ..Open::default() });
            entry.attached.store(false, Ordering::Release);
        }
        if let State::Open(open) = &mut *state {
            let key = *slot.get_or_insert_with(|| entry.waiters.fetch_add(1, Ordering::Relaxed));
            open.wakers.insert(key, cx.waker().clone());
        }
        drop(state);
        if !entry.attached.swap(true, Ordering::AcqRel) {
            self.look();
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let (Some(slot), State::Open(open)) = (self.slot, &mut *self.entry.state()) {
            open.wakers.remove(&slot);
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiter").field(&self.entry.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::store::StoreError;

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    fn end(status: Status) -> WaitOutcome {
        WaitOutcome::Ended(Arc::new(Reply { id: id("t"), task: None, status, result: None, error: None }))
    }

    /// What the waiter has by now: `-` if it waits.
    fn polled(waiter: &mut Waiter) -> String {
        match (&mut *waiter).now_or_never() {
            None => "-".to_owned(),
            Some(WaitOutcome::Ended(reply)) => reply.status.to_string(),
            Some(WaitOutcome::Missing) => "missing".to_owned(),
            Some(WaitOutcome::Failed(_)) => "failed".to_owned(),
        }
    }

    #[test]
    fn a_handle_can_be_awaited_by_reference_and_then_used() {
        let waiting = Arc::new(Waiting::default());
        let mut waiter = waiting.by_id(&id("t"));
        assert_eq!(polled(&mut waiter), "-");
        waiting.resolve(&id("t"), end(Status::Success));
        for _ in 0..2 {
            assert_eq!(polled(&mut waiter), "success");
            assert_eq!(waiter.ended().unwrap().status, Status::Success);
        }
        assert_eq!(waiting.take_asked().len(), 1, "what has succeeded is not looked up again");
    }

    #[test]
    fn a_task_that_failed_is_looked_up_when_it_is_awaited_again() {
        for (outcome, expected) in [
            (Some(end(Status::Success)), "success"),
            (Some(end(Status::Failure)), "failure"),
            (Some(WaitOutcome::Missing), "failure"),
            (Some(WaitOutcome::Failed(Error::Store(StoreError::Refused("no".into())))), "failure"),
            (None, "failure"),
        ] {
            let waiting = Arc::new(Waiting::default());
            let mut waiter = waiting.by_id(&id("t"));
            polled(&mut waiter);
            waiting.resolve(&id("t"), end(Status::Failure));
            let mut other = waiter.clone();
            assert_eq!(polled(&mut waiter), "failure");
            waiting.take_asked();
            assert_eq!((polled(&mut waiter), polled(&mut other)), ("-".to_owned(), "-".to_owned()));
            assert_eq!(waiting.take_asked(), [id("t")]);
            assert_eq!(waiter.ended().unwrap().status, Status::Failure, "as far as is known");
            match outcome {
                Some(outcome) => waiting.resolve(&id("t"), outcome),
                None => waiting.unanswered(&[id("t")]),
            }
            assert_eq!((polled(&mut waiter), polled(&mut other)), (expected.to_owned(), expected.to_owned()));
        }
    }

    #[test]
    fn a_later_end_replaces_a_failure_that_nobody_has_awaited() {
        let waiting = Arc::new(Waiting::default());
        let mut waiter = waiting.sending(&id("t"));
        waiting.resolve(&id("t"), end(Status::Failure));
        waiting.resolve(&id("t"), end(Status::Success));
        waiting.resolve(&id("t"), end(Status::Failure));
        assert_eq!(polled(&mut waiter), "success");
    }

    #[test]
    fn what_the_store_has_just_known_is_not_missing() {
        let waiting = Arc::new(Waiting::default());
        let (mut known, mut unknown) = (waiting.by_id(&id("known")), waiting.by_id(&id("unknown")));
        assert_eq!((polled(&mut known), polled(&mut unknown)), ("-".to_owned(), "-".to_owned()));
        waiting.seen(&id("known"));
        for task in ["known", "unknown"] {
            waiting.resolve(&id(task), WaitOutcome::Missing);
        }
        assert_eq!((polled(&mut known), polled(&mut unknown)), ("-".to_owned(), "missing".to_owned()));
        waiting.resolve(&id("known"), end(Status::Success));
        assert_eq!(polled(&mut known), "success");
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let waiting = Arc::new(Waiting::default());
        let waiter = waiting.by_id(&id("t"));
        for _ in 0..3 {
            polled(&mut waiter.clone());
        }
        assert!(matches!(&*waiter.entry.state(), State::Open(open) if open.wakers.is_empty()));
        drop(waiter);
        assert!(waiting.lock().is_empty());
    }

    #[test]
    fn lookups_that_nobody_takes_are_bounded() {
        let waiting = Arc::new(Waiting::default());
        waiting.look_up((0..MAX_ASKED).map(|n| id(&n.to_string())));
        assert!(waiting.has_missed().now_or_never().is_none());
        waiting.look_up([id("one"), id("more")]);
        assert_eq!(waiting.take_asked().len(), MAX_ASKED);
        assert!(waiting.has_missed().now_or_never().is_some(), "all open handles are looked up instead");
    }

    #[test]
    fn slices_have_every_open_handle_once() {
        let waiting = Arc::new(Waiting::default());
        let waiters: Vec<_> = (0..1_000).map(|n| waiting.sending(&id(&n.to_string()))).collect();
        let resolved = |n: usize| n.is_multiple_of(3) || (300..700).contains(&n);
        (0..1_000).filter(|&n| resolved(n)).for_each(|n| waiting.resolve(&id(&n.to_string()), end(Status::Success)));
        let (mut seen, mut last) = (Vec::new(), None);
        loop {
            let slice = waiting.open_after(last.as_ref(), 64);
            let Some(id) = slice.last() else { break };
            last = Some(id.clone());
            seen.extend(slice);
        }
        seen.sort_by_key(|id| id.as_str().parse::<usize>().unwrap());
        let open: Vec<_> = (0..1_000).filter(|&n| !resolved(n)).map(|n| waiters[n].id().clone()).collect();
        assert_eq!(seen, open);
    }
}
