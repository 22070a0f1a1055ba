//! The handle of a task that was sent: its status, its progress, its result.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{
    Client,
    progress::ProgressStream,
    revoke::Revocation,
    waiting::{WaitOutcome, Waiter},
};
use crate::{
    core::{
        lifecycle::{Status, TaskState},
        names::TaskId,
    },
    error::Error,
    store::Reply,
    wire::failure::{ErrorKind, Failure},
};

/// A task that was sent. Await the handle to get the task's result. Cloning or dropping it does not change the task.
///
/// A handle can be awaited again, as `&mut handle` or as a clone. If the task had failed or was revoked, and an operator has
/// [replayed](crate::admin::DeadLetters::replay) it since then, the handle follows the new run.
///
/// ```no_run
/// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
/// # async fn f() -> Result<(), yadtq::Error> {
/// let handle = add.delay(1, 2).await?;
/// println!("sent {}", handle.id());
/// let sum: i64 = handle.await?;
/// # Ok(()) }
/// ```
pub struct TaskHandle<T> {
    client: Client,
    waiter: Waiter,
    is_new: bool,
    output: PhantomData<fn() -> T>,
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(client: Client, waiter: Waiter, is_new: bool) -> Self {
        Self { client, waiter, is_new, output: PhantomData }
    }

    /// The task's id. Any process can find the task by it.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        self.waiter.id()
    }

    /// Whether the call that returned this handle made the task. `false`: an earlier call with the same
    /// [unique](crate::Call::unique) key made it, or the handle was made from an id.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Revokes the task; see [`Client::revoke`](crate::Client::revoke).
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn revoke(&self) -> Result<Revocation, Error> {
        self.client.revoke(self.id()).await
    }

    /// The progress that the task reports with [`Context::progress`](crate::Context::progress), as a stream of values of
    /// type `P`. If the task already runs, the stream starts with the latest value. The stream ends when the task reaches a
    /// final state; await the handle to learn which one.
    ///
    /// Values come in order. If a task reports them faster than they are read, some are skipped. If a worker dies, the
    /// stream continues with the values of the next run, which may be lower. If the message with a value is lost, the latest
    /// value comes within 3 s. A task to whose progress nobody listens costs only the writes of its worker.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn import(file: String) {}
    /// # async fn f() -> Result<(), yadtq::Error> {
    /// let handle = import.delay("rows.csv".to_owned()).await?;
    /// let mut percent = handle.progress::<u8>();
    /// while let Some(percent) = percent.next().await {
    ///     println!("{} %", percent?);
    /// }
    /// handle.await
    /// # }
    /// ```
    ///
    /// # Errors
    /// An item is [`Error::ProgressType`] if the value is not a `P`; later values may be. If the task is not known, the item
    /// is the error that awaiting the handle returns, and the stream ends.
    pub fn progress<P>(&self) -> ProgressStream<P> {
        ProgressStream::new(self.client.clone(), self.waiter.clone())
    }

    /// The task's current status.
    ///
    /// # Errors
    /// Redis does not answer, or does not know the task: [`Error::NotFound`], [`Error::ResultExpired`].
    pub async fn status(&self) -> Result<Status, Error> {
        let (state, known) = self.look().await?;
        match (state, known) {
            (Some(state), _) => Ok(state.status),
            (None, Some(reply)) => Ok(reply.status),
            // Kafka has the task, and a worker's claim writes its hash in Redis again.
            (None, None) if self.waiter.is_fresh() => Ok(Status::Queued),
            (None, None) => Err(self.client.missing(self.id())),
        }
    }

    /// What the store knows of the task, and how the task ended as far as that is known here. The store is not asked about a task
    /// that succeeded; any other end may be followed by a replay.
    async fn look(&self) -> Result<(Option<TaskState>, Option<Arc<Reply>>), Error> {
        let known = self.waiter.ended();
        if known.as_ref().is_some_and(|reply| reply.status == Status::Success) {
            return Ok((None, known));
        }
        match self.client.read(self.id()).await {
            Ok(state) => Ok((state, known)),
            Err(_) if known.is_some() => Ok((None, known)),
            Err(error) => Err(error),
        }
    }
}

impl<T: DeserializeOwned> TaskHandle<T> {
    /// The result if the task has ended, else `None`. It does not wait.
    ///
    /// # Errors
    /// The same as when the handle is awaited. It also fails if Redis does not answer.
    pub async fn result(&self) -> Result<Option<T>, Error> {
        match self.look().await? {
            (Some(state), _) => Reply::of(self.id(), &state).map(output).transpose(),
            (None, Some(reply)) => output(Arc::unwrap_or_clone(reply)).map(Some),
            (None, None) if self.waiter.is_fresh() => Ok(None),
            (None, None) => Err(self.client.missing(self.id())),
        }
    }

    /// Waits for the result, at most for `timeout`. The task continues after it.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] after `timeout`, else the same as when the handle is awaited.
    pub async fn wait(&self, timeout: Duration) -> Result<T, Error> {
        match tokio::time::timeout(timeout, self.clone()).await {
            Ok(result) => result,
            Err(_) => Err(Error::WaitTimeout { id: self.id().clone(), after: timeout }),
        }
    }
}

impl<T: DeserializeOwned> Future for TaskHandle<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(Pin::new(&mut self.waiter).poll(cx));
        Poll::Ready(match outcome {
            WaitOutcome::Ended(reply) => output(Arc::unwrap_or_clone(reply)),
            WaitOutcome::Missing => Err(self.client.missing(self.id())),
            WaitOutcome::Failed(error) => Err(error),
        })
    }
}

impl Client {
    /// The handle of a task that any process has sent. It does not ask whether the task exists.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let sum = client.handle::<i64>("d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn handle<T>(&self, id: TaskId) -> TaskHandle<T> {
        TaskHandle::new(self.clone(), self.inner.waiting.by_id(&id), false)
    }
}

/// The result or error for whoever awaits a task that has ended.
fn output<T: DeserializeOwned>(reply: Reply) -> Result<T, Error> {
    let Reply { id, task, status, result, error } = reply;
    let wrong = |e: serde_json::Error| Error::ResultType { id: id.clone(), detail: e.to_string() };
    let failure = || serde_json::from_str::<Failure>(error.as_deref().unwrap_or("null"));
    match status {
        Status::Success => match result {
            Some(json) => serde_json::from_str(&json).map_err(wrong),
            None => Err(Error::NoResult { id }),
        },
        Status::Revoked => Err(match failure().map(|failure| failure.kind) {
            Ok(ErrorKind::Expired) => Error::Expired { id },
            Ok(ErrorKind::Purged) => Error::Purged { id },
            _ => Error::Revoked { id },
        }),
        _ => {
            let Failure { kind, message, attempt, .. } = failure().map_err(wrong)?;
            let task = task.map(|task| task.to_string()).unwrap_or_default();
            Err(Error::TaskFailed { id, task, kind, message, attempts: attempt })
        }
    }
}

impl<T> Clone for TaskHandle<T> {
    fn clone(&self) -> Self {
        Self::new(self.client.clone(), self.waiter.clone(), self.is_new)
    }
}

impl<T> Unpin for TaskHandle<T> {}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskHandle").field(self.id()).finish()
    }
}
