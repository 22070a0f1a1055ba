//! Everything that can go wrong for a caller, by what the caller can do about it.

use std::time::Duration;

use thiserror::Error;

use crate::{
    broker::BrokerError,
    core::names::{NameError, TaskId},
    store::StoreError,
    wire::failure::{ErrorKind, Failure},
};

/// What a client or worker returns when it cannot do as asked.
///
/// ```no_run
/// # async fn f(handle: yadtq::TaskHandle<i64>) {
/// use yadtq::Error;
///
/// match handle.await {
///     Ok(sum) => println!("{sum}"),
///     Err(Error::TaskFailed { kind, message, .. }) => eprintln!("the task said: {kind}: {message}"),
///     Err(other) => eprintln!("no answer: {other}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The task ran, and failed for good.
    #[error("task failed after {attempts} attempt(s): {kind}: {message}")]
    TaskFailed {
        /// What made it fail.
        kind: ErrorKind,
        /// The error's text with its sources.
        message: String,
        /// The attempt that failed last, from 1.
        attempts: u32,
    },
    /// The task was ended before it could succeed or fail, because its time was over.
    #[error("task {id} was revoked: {reason}")]
    Revoked {
        /// The task.
        id: TaskId,
        /// Why.
        reason: String,
    },
    /// Nothing is known of that id: it was never submitted here, or Redis lost it before a worker saw it.
    #[error("no task {id} in the result backend; check the id, YADTQ_REDIS and YADTQ_NAMESPACE")]
    NotFound {
        /// The id.
        id: TaskId,
    },
    /// The task's record has expired; it may have ended in any way.
    #[error("the result of task {id} has expired")]
    Expired {
        /// The task.
        id: TaskId,
    },
    /// The task succeeded, and its result was not kept, as asked.
    #[error("task {id} succeeded, and its result was not kept")]
    NoResult {
        /// The task.
        id: TaskId,
    },
    /// The result is not of the type that the handle expects.
    #[error("the result of task {id} does not fit the expected type: {detail}")]
    ResultType {
        /// The task.
        id: TaskId,
        /// Where and why.
        detail: String,
    },
    /// What the task tells of its progress is not of the type that the stream expects.
    #[error("the progress of task {id} does not fit the expected type: {detail}")]
    ProgressType {
        /// The task.
        id: TaskId,
        /// Where and why.
        detail: String,
    },
    /// The task had not ended when the time was over; it goes on, and can be awaited again.
    #[error("task {id} had not ended after {after:?}")]
    WaitTimeout {
        /// The task.
        id: TaskId,
        /// How long we waited.
        after: Duration,
    },
    /// Kafka did not acknowledge. The task may or may not be queued; sending it again with the same id is safe.
    #[error("task {id} may or may not be queued, sending it again with the same id is safe: {source}")]
    Unacknowledged {
        /// The id to send it again with.
        id: TaskId,
        /// Why.
        #[source]
        source: BrokerError,
    },
    /// Redis did not say whether the unique key is free; nothing was sent.
    #[error(
        "unique key `{key}` of task {task} could not be reserved, and nothing was sent: {source}; send it again when redis \
         answers, or without a key"
    )]
    Unique {
        /// The task's name.
        task: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The task's record is over the client's limit; nothing was sent. Put the data elsewhere, and send where.
    #[error(
        "task {task} would be a record of {len} bytes, over the limit of {max}; send a reference to the data instead"
    )]
    TooLarge {
        /// The task's name.
        task: String,
        /// The record's size in bytes.
        len: usize,
        /// The client's limit.
        max: usize,
    },
    /// An argument cannot be written as JSON; nothing was sent.
    #[error("argument `{parameter}` of task {task} cannot be sent as JSON: {detail}")]
    Argument {
        /// The task's name.
        task: String,
        /// The parameter.
        parameter: String,
        /// Why.
        detail: String,
    },
    /// A setting, option or name is wrong.
    #[error("{what}: {problem}")]
    Config {
        /// The setting, as the user spells it.
        what: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// Two registered tasks have the same name.
    #[error("two tasks named `{name}` are registered; give one another name with #[yadtq::task(name = \"..\")]")]
    DuplicateTask {
        /// The name.
        name: String,
    },
    /// The worker cannot go on.
    #[error("the worker has ended: {detail}")]
    Worker {
        /// Why.
        detail: String,
    },
    /// A client is installed already.
    #[error("a client is installed already; install one, early in main")]
    AlreadyInstalled,
    /// Kafka did not do as asked.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Redis did not do as asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    pub(crate) fn config(what: impl Into<String>, problem: impl ToString) -> Self {
        Self::Config { what: what.into(), problem: problem.to_string() }
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::config("name", error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::TaskFailed { kind: failure.kind, message: failure.message, attempts: failure.attempt }
    }
}
