//! What a task is: its definition, its error, and the codec of its arguments and result.
//!
//! `#[yadtq::task]` writes the [`Task`] impl; the rest of the crate sees functions from JSON to JSON.

mod args;
mod expanded;
mod output;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    args::{ArgsError, Reader, Writer},
    expanded::{Injected, delay},
    output::{IntoTaskError, NotResult, Probe, Ret, Returned, Split, finish},
};
use crate::{context::Context, core::priority::Priority, wire::failure::ErrorKind};

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
}

impl TaskError {
    /// An error with this text.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Error, message: message.into() }
    }

    /// Names the kind of error, for callers that tell kinds apart. Default: `error`.
    #[must_use]
    pub fn kind(mut self, kind: impl AsRef<str>) -> Self {
        self.kind = ErrorKind::from(kind.as_ref());
        self
    }

    pub(crate) fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
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
