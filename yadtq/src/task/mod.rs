//! What a task is: its definition, its error, and the codec of its arguments and result.
//!
//! `#[yadtq::task]` writes the [`Task`] impl; the rest of the crate sees functions from JSON to JSON.

mod args;
mod expanded;
mod limits;
mod output;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::limits::Limits;
pub use self::{
    args::{ArgsError, Reader, Writer},
    expanded::{Injected, delay},
    output::{IntoTaskError, NotResult, Probe, Ret, Returned, Split, finish, finish_if},
};
use crate::{
    context::Context,
    core::{limits::Rate, priority::Priority, retry::Retry},
    wire::failure::ErrorKind,
};

/// A function that workers can run. Implemented by `#[yadtq::task]`.
///
/// ```
/// use yadtq::Task;
///
/// #[yadtq::task(queue = "math")]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// assert_eq!(add.definition().name(), "add");
/// ```
pub trait Task: Send + Sync + 'static {
    /// What the function returns, the `Ok` side if it returns a `Result`.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Its name, options and body.
    fn definition(&self) -> Definition;
}

/// A task's name, options and body, as a worker registers it. Made by `#[yadtq::task]`.
#[derive(Clone)]
pub struct Definition {
    pub(crate) name: &'static str,
    pub(crate) queue: Option<&'static str>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) result_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) unique: Option<Duration>,
    pub(crate) priority: Priority,
    pub(crate) retry: Retry,
    pub(crate) limits: Limits,
    pub(crate) body: Body,
}

/// How a run ended, as JSON text or as the error to record.
pub type Finished = Result<String, TaskError>;

/// The future of one run.
pub type RunFuture = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The closure of one blocking run.
pub type RunBlocking = Box<dyn FnOnce() -> Finished + Send>;

/// A task's function, from JSON arguments to a run.
#[derive(Clone, Copy)]
pub enum Body {
    /// An `async fn`, for the application's runtime.
    Async(fn(Context, Reader<'_>) -> Result<RunFuture, ArgsError>),
    /// A plain `fn`, for the blocking pool.
    Blocking(fn(Context, Reader<'_>) -> Result<RunBlocking, ArgsError>),
}

impl Definition {
    /// A definition without options.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: &'static str, body: Body) -> Self {
        Self {
            name,
            queue: None,
            timeout: None,
            result_ttl: None,
            expires: None,
            unique: None,
            priority: Priority::Normal,
            retry: Retry::new(),
            limits: Limits::new(),
            body,
        }
    }

    /// Sets the queue.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_queue(mut self, queue: &'static str) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Sets the timeout.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long results are kept; zero: not at all.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_result_ttl(mut self, ttl: Duration) -> Self {
        self.result_ttl = Some(ttl);
        self
    }

    /// Sets how long after it was sent it may start.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_expires(mut self, expires: Duration) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Makes its calls unique by their arguments, for so long.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_unique(mut self, ttl: Duration) -> Self {
        self.unique = Some(ttl);
        self
    }

    /// Sets the priority.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets when failed attempts are made again.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how often it starts.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rate_limit(mut self, rate: Rate) -> Self {
        self.limits.rate = Some(rate);
        self
    }

    /// Sets how many of it run at once.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_max_running(mut self, most: u32) -> Self {
        self.limits.max_running = Some(most);
        self
    }

    /// Gives each value of a parameter limits of its own.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_limit_key(mut self, parameter: &'static str, position: usize) -> Self {
        self.limits.key = Some((parameter, position));
        self
    }

    /// The name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The queue that it is sent to unless the sender chooses another, if it names one.
    #[must_use]
    pub fn queue(&self) -> Option<&'static str> {
        self.queue
    }

    /// How soon it runs beside others of its queue, unless the sender chooses.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// How long its results are kept, if it says so; zero: not at all.
    #[must_use]
    pub fn result_ttl(&self) -> Option<Duration> {
        self.result_ttl
    }

    /// How long its calls are unique by their arguments, if they are.
    #[must_use]
    pub fn unique(&self) -> Option<Duration> {
        self.unique
    }

    /// How long after it was sent it may start, if that is limited.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        self.expires
    }

    /// How often it starts, over all workers, if that is limited.
    #[must_use]
    pub fn rate_limit(&self) -> Option<Rate> {
        self.limits.rate
    }

    /// How many of it run at once, over all workers, if that is limited.
    #[must_use]
    pub fn max_running(&self) -> Option<u32> {
        self.limits.max_running
    }

    /// The parameter each value of which has limits of its own.
    #[must_use]
    pub fn limit_key(&self) -> Option<&'static str> {
        self.limits.key.map(|(parameter, _)| parameter)
    }

    /// When failed attempts are made again, as far as it says so.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// How long one run may take, if it is limited.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocking = matches!(self.body, Body::Blocking(_));
        f.debug_struct("Definition").field("name", &self.name).field("blocking", &blocking).finish_non_exhaustive()
    }
}

/// The error of a task whose function wants to say more than an error type can.
///
/// Made from any [`std::error::Error`] by `?`, or from a text.
///
/// ```
/// use yadtq::TaskError;
///
/// #[yadtq::task]
/// async fn charge(card: String) -> Result<u64, TaskError> {
///     let amount: u64 = card.parse()?;
///     if amount > 100 {
///         return Err(TaskError::new("the bank said no").kind("card-declined"));
///     }
///     Ok(amount)
/// }
/// ```
#[derive(Debug)]
pub struct TaskError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) steer: Steer,
}

/// What an error says of how the task goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Steer {
    /// As the retry policy says.
    #[default]
    Policy,
    /// As the retry policy says, also if `retry_if` would not.
    Retry,
    /// A retry, after this time.
    RetryAfter(Duration),
    /// No retry.
    Fatal,
    /// The same attempt again, after this time.
    Snooze(Duration),
}

impl TaskError {
    /// An error with this text.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Error, message: message.into(), steer: Steer::Policy }
    }

    /// An error that ends the task: it fails without another attempt, and becomes a dead letter.
    ///
    /// ```
    /// use yadtq::TaskError;
    ///
    /// #[yadtq::task]
    /// async fn charge(card: String) -> Result<u64, TaskError> {
    ///     let amount: u64 = card.parse().map_err(TaskError::fatal)?;
    ///     Ok(amount)
    /// }
    /// ```
    #[must_use]
    pub fn fatal<Via>(error: impl IntoTaskError<Via>) -> Self {
        Self { steer: Steer::Fatal, ..error.into_task_error() }
    }

    /// An error after which the task is tried again as its policy says, also if its `retry_if` says no. For the
    /// attempts that are left.
    ///
    /// ```
    /// assert_eq!(yadtq::TaskError::retry("busy").to_string(), "busy");
    /// ```
    #[must_use]
    pub fn retry<Via>(error: impl IntoTaskError<Via>) -> Self {
        Self { steer: Steer::Retry, ..error.into_task_error() }
    }

    /// An error after which the task is tried again after this time, as a `Retry-After` header tells it. For the
    /// attempts that are left.
    ///
    /// ```
    /// use std::time::Duration;
    /// use yadtq::TaskError;
    ///
    /// #[yadtq::task]
    /// async fn fetch(url: String) -> Result<(), TaskError> {
    ///     Err(TaskError::retry_after("too many requests", Duration::from_secs(30)))
    /// }
    /// ```
    #[must_use]
    pub fn retry_after<Via>(error: impl IntoTaskError<Via>, time: Duration) -> Self {
        Self { steer: Steer::RetryAfter(time), ..error.into_task_error() }
    }

    /// Not an error: the task hands itself back and runs again after this time, as the same attempt. Its slot is free
    /// meanwhile. A time of zero runs it again at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use yadtq::TaskError;
    ///
    /// #[yadtq::task]
    /// async fn ship(order: u64, is_packed: bool) -> Result<(), TaskError> {
    ///     if !is_packed {
    ///         return Err(TaskError::snooze(Duration::from_secs(60)));
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn snooze(time: Duration) -> Self {
        Self { steer: Steer::Snooze(time), ..Self::new(format!("snoozed for {time:?}")) }
    }

    /// Names the kind of error, for callers that tell kinds apart. Default: `error`.
    #[must_use]
    pub fn kind(mut self, kind: impl AsRef<str>) -> Self {
        self.kind = ErrorKind::from(kind.as_ref());
        self
    }

    pub(crate) fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), steer: Steer::Policy }
    }

    /// What the function cannot do better at the next attempt.
    pub(crate) fn hopeless(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { steer: Steer::Fatal, ..Self::of(kind, message) }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::new(output::with_sources(&error))
    }
}
