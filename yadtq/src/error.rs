//! The errors that callers get, grouped by what they can do about them.

use std::time::Duration;

use thiserror::Error;

use crate::{
    broker::BrokerError,
    core::names::{NameError, TaskId},
    store::StoreError,
    wire::failure::ErrorKind,
};

/// The error of a client or worker.
///
/// ```no_run
/// # async fn f(handle: yadtq::TaskHandle<i64>) {
/// use yadtq::Error;
///
/// match handle.await {
///     Ok(sum) => println!("{sum}"),
///     Err(Error::TaskFailed { kind, message, .. }) => eprintln!("the task failed: {kind}: {message}"),
///     Err(other) => eprintln!("there is no result: {other}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The task failed, and will not be retried.
    #[error("task {id} ({task}) failed after {attempts} attempt(s): {kind}: {message}")]
    TaskFailed {
        /// The task's id.
        id: TaskId,
        /// The task's name.
        task: String,
        /// What made the task fail.
        kind: ErrorKind,
        /// The text of the error and of its sources.
        message: String,
        /// The attempt that failed last, from 1.
        attempts: u32,
    },
    /// The task was revoked: somebody asked for it to end.
    #[error("task {id} was revoked: it was asked to end")]
    Revoked {
        /// The task's id.
        id: TaskId,
    },
    /// The task did not start before its [expiry](crate::Call::expires_in), and will not run.
    #[error("task {id} expired before it could run")]
    Expired {
        /// The task's id.
        id: TaskId,
    },
    /// The task waited in a queue that an operator has [purged](crate::admin::Admin::purge), and will not run.
    #[error("task {id} was revoked: its queue was purged")]
    Purged {
        /// The task's id.
        id: TaskId,
    },
    /// There is no task with this id: it was never sent here, or Redis lost it and no worker has read its record yet.
    #[error("no task {id} in the result backend; check the id, YADTQ_REDIS and YADTQ_NAMESPACE")]
    NotFound {
        /// The task's id.
        id: TaskId,
    },
    /// Redis no longer has the task, because it is too old. It may have succeeded, failed or been revoked.
    #[error("the result of task {id} has expired")]
    ResultExpired {
        /// The task's id.
        id: TaskId,
    },
    /// The task succeeded, and its result was not kept, as the task or the call requested.
    #[error("task {id} succeeded, and its result was not kept")]
    NoResult {
        /// The task's id.
        id: TaskId,
    },
    /// The result does not have the type that the handle expects.
    #[error("the result of task {id} does not fit the expected type: {detail}")]
    ResultType {
        /// The task's id.
        id: TaskId,
        /// What does not fit, and where.
        detail: String,
    },
    /// The progress that the task reports does not have the type that the stream expects.
    #[error("the progress of task {id} does not fit the expected type: {detail}")]
    ProgressType {
        /// The task's id.
        id: TaskId,
        /// What does not fit, and where.
        detail: String,
    },
    /// The task did not end within the timeout. It continues, and can be awaited again.
    #[error("task {id} had not ended after {after:?}")]
    WaitTimeout {
        /// The task's id.
        id: TaskId,
        /// The timeout.
        after: Duration,
    },
    /// Kafka did not acknowledge. The task may or may not be queued; sending it again with the same id is safe.
    #[error("task {id} may or may not be queued, sending it again with the same id is safe: {source}")]
    Unacknowledged {
        /// The task's id, with which it can be sent again.
        id: TaskId,
        /// The error of the server.
        #[source]
        source: BrokerError,
    },
    /// There is no client to send with: none is installed, and the environment names no servers.
    #[error(
        "no client is installed, and YADTQ_KAFKA is not set: call `client.install()` when the program starts, send with \
         `task.call(..).send(&client)`, or set YADTQ_KAFKA and YADTQ_REDIS (YADTQ_KAFKA=embedded for a first try)"
    )]
    NoClient,
    /// Redis did not answer whether the unique key is free; nothing was sent. The call can be repeated.
    #[error(
        "unique key `{key}` of task {task} could not be reserved, and nothing was sent: {source}; send it again when redis \
         answers, or without a key"
    )]
    Unique {
        /// The task's name.
        task: String,
        /// The key.
        key: String,
        /// The error of the server.
        #[source]
        source: StoreError,
    },
    /// The task's record is larger than the client's limit; nothing was sent. Store the data elsewhere, and send a reference.
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
        /// The reason.
        detail: String,
    },
    /// A setting, option or name is wrong.
    #[error("{what}: {problem}")]
    Config {
        /// The name of the setting, as the user writes it.
        what: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Two registered tasks have the same name.
    #[error("two tasks named `{name}` are registered; give one another name with #[yadtq::task(name = \"..\")]")]
    DuplicateTask {
        /// The name.
        name: String,
    },
    /// The worker cannot continue, and has stopped.
    #[error("the worker has ended: {detail}")]
    Worker {
        /// The reason.
        detail: String,
    },
    /// A client is installed already.
    #[error("a client is installed already; install only one, early in main")]
    AlreadyInstalled,
    /// Kafka did not answer, or refused the request.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Redis did not answer, or refused the request.
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
