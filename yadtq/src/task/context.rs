//! The context of a run: what a task can learn about itself, and the state that tasks share.

use std::{any::Any, fmt, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    progress::{self, ProgressBuffer, Reporter},
    state::{MissingState, State, States},
};
use crate::{
    core::{lifecycle::Token, names::TaskId},
    wire::{Headers, dead::header, failure::Failure},
};

/// The context of a run. A task that has it as its first parameter gets it from the worker. It is cheap to clone.
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
    headers: Headers,
    token: Token,
    cancel: CancellationToken,
    stopping: CancellationToken,
    state: States,
    reporter: Reporter,
}

impl Context {
    pub(crate) fn new(
        id: TaskId, task: Arc<str>, queue: Arc<str>, attempt: u32, token: Token, cancel: CancellationToken,
        state: States,
    ) -> Self {
        let (last_error, reporter, stopping) = (None, Reporter::default(), CancellationToken::new());
        let headers = Headers::new();
        let inner = Inner { id, task, queue, attempt, last_error, headers, token, cancel, stopping, state, reporter };
        Self { inner: Arc::new(inner) }
    }

    /// The same context, with what a worker adds: the error of the attempt before, the record's headers, what is cancelled when
    /// the worker begins to stop, and where progress goes.
    pub(crate) fn in_worker(
        self, last_error: Option<Arc<Failure>>, headers: Headers, stopping: CancellationToken,
        progress: &Arc<ProgressBuffer>,
    ) -> Self {
        let (inner, reporter) = (Arc::unwrap_or_clone(self.inner), Reporter::new(progress));
        Self { inner: Arc::new(Inner { last_error, headers, stopping, reporter, ..inner }) }
    }

    /// A context for unit tests of a task's body: it has a new id, attempt 1 and no state, and is never cancelled.
    #[must_use]
    pub fn for_test() -> Self {
        Self::new(TaskId::new(), "test".into(), "default".into(), 1, 1, CancellationToken::new(), States::default())
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

    /// The same context with one more header, for unit tests.
    ///
    /// ```
    /// let ctx = yadtq::Context::for_test().with_header("tenant", "acme");
    /// assert_eq!(ctx.header("tenant"), Some("acme"));
    /// ```
    #[must_use]
    pub fn with_header(&self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.headers.push((name.into(), value.into().into()));
        Self { inner: Arc::new(inner) }
    }

    /// The task's id. It is the same in every run of the task, so it can be the idempotency key in other systems.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.inner.id
    }

    /// The task's name.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.inner.task
    }

    /// The queue from which the worker took the task.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.inner.queue
    }

    /// The number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// The error of the attempt before this one; `None` at the first attempt.
    ///
    /// ```
    /// assert!(yadtq::Context::for_test().last_error().is_none());
    /// ```
    #[must_use]
    pub fn last_error(&self) -> Option<&Failure> {
        self.inner.last_error.as_deref()
    }

    /// The value of a header that the sender has set with [`Call::header`](crate::Call::header), or that a program without this
    /// library has added to the Kafka record. `None`: there is none of this name, or it is not UTF-8. If there are several, it is
    /// the last one.
    ///
    /// ```
    /// use yadtq::Context;
    ///
    /// #[yadtq::task]
    /// async fn invoice(ctx: Context, order: u64) -> String {
    ///     format!("order {order} of {}", ctx.header("tenant").unwrap_or("nobody"))
    /// }
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let ctx = Context::for_test().with_header("tenant", "acme");
    /// assert_eq!(invoice.run(ctx, 17).await, "order 17 of acme");
    /// # });
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers().filter(|(own, _)| *own == name).last()?.1;
        std::str::from_utf8(value).ok()
    }

    /// The headers of the task, in their order: names, and values that need not be UTF-8. They are the same in every run of the
    /// task, and tasks that it sends inherit them. The headers that begin with `yadtq-` are left out.
    ///
    /// ```
    /// let ctx = yadtq::Context::for_test().with_header("tenant", "acme");
    /// assert_eq!(ctx.headers().next(), Some(("tenant", &b"acme"[..])));
    /// ```
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.inner.headers.iter().map(|(name, value)| (name.as_str(), &**value));
        all.filter(|(name, _)| !name.starts_with(header::PREFIX))
    }

    /// The id of the task that sent this one; `None` if it was sent from outside a task.
    ///
    /// ```
    /// assert_eq!(yadtq::Context::for_test().parent_id(), None);
    /// ```
    #[must_use]
    pub fn parent_id(&self) -> Option<TaskId> {
        self.id_in(header::PARENT)
    }

    /// The id of the task at the root of the tree that this one belongs to: a task was sent from outside a task, sent others,
    /// and so on down to this one. The task itself if it was sent from outside a task. Useful in logs, to find what belongs
    /// together.
    ///
    /// ```
    /// let ctx = yadtq::Context::for_test();
    /// assert_eq!(ctx.root_id(), *ctx.id());
    /// ```
    #[must_use]
    pub fn root_id(&self) -> TaskId {
        self.id_in(header::ROOT).unwrap_or_else(|| self.inner.id.clone())
    }

    fn id_in(&self, header: &str) -> Option<TaskId> {
        let (_, value) = self.inner.headers.iter().rfind(|(name, _)| name == header)?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// The fence token of this run: greater than that of every earlier run of the task. A store that remembers
    /// the greatest token it has seen can refuse writes of a run that lost its lease.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.inner.token
    }

    /// The shared value of type `T`. A parameter of type [`State<T>`](crate::State) is checked before the worker starts.
    ///
    /// # Errors
    /// The worker has no shared value of this type.
    pub fn state<T: Any + Send + Sync>(&self) -> Result<&T, MissingState> {
        self.inner.state.get()
    }

    pub(super) fn shared<T: Any + Send + Sync>(&self) -> Result<State<T>, MissingState> {
        self.inner.state.shared()
    }

    /// The largest progress that can be reported, in bytes of JSON.
    pub const MAX_PROGRESS_BYTES: usize = progress::MAX_REPORT_BYTES;

    /// Reports the progress of this run to [`TaskHandle::progress`](crate::TaskHandle::progress), `yadtq status` and
    /// [`TaskInfo::progress`](crate::admin::TaskInfo::progress). The value may have any type that serializes, up to
    /// [`MAX_PROGRESS_BYTES`](Self::MAX_PROGRESS_BYTES) (4,096) of JSON.
    ///
    /// A call is cheap, even in a tight loop: it only stores the value in memory. The worker sends the latest value of each
    /// task at most every 100 ms, so listeners may miss values in between and the last value before the end. Progress is a
    /// hint: it is deleted when the run ends, and Redis may lose it.
    ///
    /// A report never fails the task. A value that is too large or does not serialize is ignored, and the first one of a run
    /// is logged (`progress_refused`).
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

    /// Whether this run should stop: the task was revoked, its soft timeout is over (by default, 90 % of its timeout), the worker
    /// stops and 90 % of its drain timeout are over, or its lease is lost. Unless the lease is lost, the task has some time
    /// then: an `async` task is dropped at its timeout, at the end of the drain timeout, or after
    /// [`revoke_grace`](crate::WorkerBuilder::revoke_grace). What it returns until then counts.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    pub(crate) fn cancel(&self) {
        self.inner.cancel.cancel();
    }

    /// Waits until this run should stop; see [`is_cancelled`](Self::is_cancelled).
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Whether the worker begins to stop. The task may go on for the [drain timeout](crate::WorkerBuilder::drain_timeout); one that
    /// would take longer can end early, and snooze or fail to be run again elsewhere.
    ///
    /// ```
    /// use std::time::Duration;
    /// use yadtq::{Context, TaskError};
    ///
    /// #[yadtq::task]
    /// async fn import(ctx: Context, rows: Vec<String>) -> Result<usize, TaskError> {
    ///     for _row in &rows {
    ///         if ctx.is_stopping() {
    ///             return Err(TaskError::snooze(Duration::ZERO)); // another worker goes on
    ///         }
    ///     }
    ///     Ok(rows.len())
    /// }
    /// ```
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.is_cancelled()
    }

    /// Waits until the worker begins to stop; see [`is_stopping`](Self::is_stopping).
    ///
    /// ```
    /// # async fn f(ctx: yadtq::Context, work: impl Future<Output = u32>) -> Option<u32> {
    /// tokio::select! {
    ///     done = work => Some(done),
    ///     () = ctx.stopping() => None,
    /// }
    /// # }
    /// ```
    pub async fn stopping(&self) {
        self.inner.stopping.cancelled().await;
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
