//! Tasks: their definitions, their errors, and how arguments and results become JSON.
//!
//! `#[yadtq::task]` generates the [`Task`] impl. The rest of the crate sees functions from JSON to JSON.

mod args;
mod context;
mod definition;
mod expanded;
mod limits;
mod output;
mod progress;
mod registered;
mod state;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    args::{ArgsError, Reader, Writer},
    context::Context,
    definition::Definition,
    expanded::{Injected, SharedState},
    output::{IntoTaskError, NotResult, Probe, Ret, Returned, Split, finish, finish_if},
    registered::Tasks,
    state::{MissingState, State},
};
pub(crate) use self::{limits::Limits, progress::ProgressBuffer, state::States};
use crate::wire::failure::ErrorKind;
pub(crate) use crate::wire::record::TaskOptions;

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
    /// The type that the function returns, or of its `Ok` if it returns a `Result`.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// The task's name, options and body.
    fn definition(&self) -> Definition;
}

/// How a run ended: with a result as JSON text, or with the error to record.
pub type Finished = Result<String, TaskError>;

/// The future of one run.
pub type RunFuture = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The closure of one blocking run.
pub type RunBlocking = Box<dyn FnOnce() -> Finished + Send>;

/// A task's function, which makes a run from JSON arguments.
#[derive(Clone, Copy)]
pub enum Body {
    /// An `async fn`; it runs on the application's runtime.
    Async(fn(Context, Reader<'_>) -> Result<RunFuture, ArgsError>),
    /// A plain `fn`; it runs on the blocking pool.
    Blocking(fn(Context, Reader<'_>) -> Result<RunBlocking, ArgsError>),
}

/// An error that decides more than an error type can: its kind, and what happens to the task next.
///
/// It is made from any [`std::error::Error`] by `?`, or from a text.
///
/// ```
/// use yadtq::TaskError;
///
/// #[yadtq::task]
/// async fn charge(card: String) -> Result<u64, TaskError> {
///     let amount: u64 = card.parse()?;
///     if amount > 100 {
///         return Err(TaskError::new("the bank declined the card").kind("card-declined"));
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

/// What an error decides about the task's next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Steer {
    /// The retry policy decides.
    #[default]
    Policy,
    /// The retry policy decides, but `retry_if` is ignored.
    Retry,
    /// The task is retried after this time.
    RetryAfter(Duration),
    /// The task is not retried.
    Fatal,
    /// The same attempt runs again after this time.
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

    /// An error after which the task is retried as its retry policy says, even if its `retry_if` returns `false`, as long as
    /// attempts are left.
    ///
    /// ```
    /// assert_eq!(yadtq::TaskError::retry("busy").to_string(), "busy");
    /// ```
    #[must_use]
    pub fn retry<Via>(error: impl IntoTaskError<Via>) -> Self {
        Self { steer: Steer::Retry, ..error.into_task_error() }
    }

    /// An error after which the task is retried after this time, as a `Retry-After` header asks for, as long as attempts are
    /// left.
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

    /// Snoozes the task, which is not an error: the run ends, and the same attempt runs again after this time. Its slot is
    /// free until then. With a time of zero it runs again at once.
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

    /// Names the kind of error, so that callers can distinguish kinds. Default: `error`.
    #[must_use]
    pub fn kind(mut self, kind: impl AsRef<str>) -> Self {
        self.kind = ErrorKind::from(kind.as_ref());
        self
    }

    pub(crate) fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), steer: Steer::Policy }
    }

    /// A fatal error of this kind, which another attempt cannot fix.
    pub(crate) fn fatal_of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { steer: Steer::Fatal, ..Self::of(kind, message) }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        output::of_error(&error)
    }
}
