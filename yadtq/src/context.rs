//! What a running task can ask about itself.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    sync::Arc,
};

use serde::Serialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{lifecycle::Token, names::TaskId},
    report::{self, Board, Reporter},
    wire::failure::Failure,
};

/// Handed to a task that takes it as its first parameter. Cheap to clone.
///
/// ```
/// use yadtq::Context;
///
/// #[yadtq::task]
/// async fn import(ctx: Context, rows: Vec<String>) -> usize {
///     let mut done = 0;
///     for _row in rows {
///         if ctx.is_cancelled() {
///             break;
///         }
///         done += 1;
///     }
///     done
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let ctx = Context::for_test();
/// assert_eq!(import.run(ctx, vec!["a".into()]).await, 1);
/// # });
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    id: TaskId,
    task: Arc<str>,
    queue: Arc<str>,
    attempt: u32,
    last_error: Option<Arc<Failure>>,
    token: Token,
    cancel: CancellationToken,
    state: State,
    reporter: Reporter,
}

/// Shared values by type, given to the worker's builder.
#[derive(Clone, Default)]
pub(crate) struct State(Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl State {
    pub(crate) fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), Arc::new(value));
    }
}

/// The worker has no state of that type.
#[derive(Clone, Debug, Error)]
#[error("the worker has no state of type {type_name}; give it one with Worker::builder().state(..)")]
pub struct MissingState {
    type_name: &'static str,
}

impl Context {
    pub(crate) fn new(
        id: TaskId, task: Arc<str>, queue: Arc<str>, attempt: u32, token: Token, cancel: CancellationToken,
        state: State,
    ) -> Self {
        let (last_error, reporter) = (None, Reporter::default());
        Self { inner: Arc::new(Inner { id, task, queue, attempt, last_error, token, cancel, state, reporter }) }
    }

    /// The same context, whose progress somebody passes on.
    pub(crate) fn reporting(self, board: &Arc<Board>) -> Self {
        let reporter = Reporter::new(board);
        Self { inner: Arc::new(Inner { reporter, ..Arc::unwrap_or_clone(self.inner) }) }
    }

    /// The same context, after an attempt that failed like this.
    pub(crate) fn after(self, last_error: Option<Arc<Failure>>) -> Self {
        Self { inner: Arc::new(Inner { last_error, ..Arc::unwrap_or_clone(self.inner) }) }
    }

    /// A context for unit tests of a task's body: a fresh id, attempt 1, no state, never cancelled.
    #[must_use]
    pub fn for_test() -> Self {
        Self::new(TaskId::new(), "test".into(), "default".into(), 1, 1, CancellationToken::new(), State::default())
    }

    /// The same context with one more shared value, for unit tests.
    ///
    /// ```
    /// let ctx = yadtq::Context::for_test().with_state(42_u32);
    /// assert_eq!(ctx.state::<u32>().unwrap(), &42);
    /// ```
    #[must_use]
    pub fn with_state<T: Any + Send + Sync>(&self, value: T) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.state.insert(value);
        Self { inner: Arc::new(inner) }
    }

    /// The task's id: the same in every attempt and delivery, so an idempotency key for outside systems.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.inner.id
    }

    /// The task's name.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.inner.task
    }

    /// The queue that the task came through.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.inner.queue
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// Why the attempt before this one failed, if there was one.
    ///
    /// ```
    /// assert!(yadtq::Context::for_test().last_error().is_none());
    /// ```
    #[must_use]
    pub fn last_error(&self) -> Option<&Failure> {
        self.inner.last_error.as_deref()
    }

    /// The fence token of this run: greater than that of every earlier run of the task. A store that remembers
    /// the greatest token it has seen can refuse writes of a run that lost its lease.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.inner.token
    }

    /// The shared value of type `T`.
    ///
    /// # Errors
    /// The worker was given none.
    pub fn state<T: Any + Send + Sync>(&self) -> Result<&T, MissingState> {
        let value = self.inner.state.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref());
        value.ok_or(MissingState { type_name: type_name::<T>() })
    }

    /// The largest progress that is told, in bytes of JSON.
    pub const MAX_PROGRESS_BYTES: usize = report::MAX_BYTES;

    /// Tells how far this run is, for [`TaskHandle::progress`](crate::TaskHandle::progress), `yadtq status` and
    /// [`TaskInfo::progress`](crate::TaskInfo::progress). Any value that serializes, at most
    /// [`MAX_PROGRESS_BYTES`](Self::MAX_PROGRESS_BYTES) (4,096) of JSON.
    ///
    /// Cheap, also in a tight loop: it only puts the value where the worker finds it. The worker writes the latest value
    /// of each task every 100 ms at most, so values in between are skipped, and what is told in the last moment before
    /// the end may not be seen. A hint: it is not kept beyond the end of the run, and Redis may lose it.
    ///
    /// Never fails the task: a value that is too large or does not serialize is not told, and the first one of a run is
    /// logged (`progress_refused`).
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use yadtq::Context;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Done {
    ///     rows: usize,
    ///     of: usize,
    /// }
    ///
    /// #[yadtq::task]
    /// async fn import(ctx: Context, rows: Vec<String>) {
    ///     for (i, _row) in rows.iter().enumerate() {
    ///         ctx.progress(Done { rows: i + 1, of: rows.len() });
    ///     }
    /// }
    /// ```
    pub fn progress(&self, value: impl Serialize) {
        self.inner.reporter.report(&self.inner.id, self.inner.token, &value);
    }

    /// Whether this run should end: its lease is lost, its timeout is over, or the worker is stopping and its
    /// time to drain is over. What it returns may still be recorded.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    pub(crate) fn cancel(&self) {
        self.inner.cancel.cancel();
    }

    /// Waits until this run should end.
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { id, task, attempt, token, .. } = &*self.inner;
        f.debug_struct("Context")
            .field("id", id)
            .field("task", task)
            .field("attempt", attempt)
            .field("token", token)
            .finish_non_exhaustive()
    }
}
