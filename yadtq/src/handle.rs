//! A submitted task, seen from the outside.

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

use crate::{
    client::{Client, ProgressStream, Revocation, Settled, Waiter},
    core::{lifecycle::Status, names::TaskId},
    error::Error,
    store::Reply,
    wire::failure::Failure,
};

/// A task that was sent. Await it for its result; clone it, keep it, or drop it: the task goes on all the same.
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

    /// The task's id, with which any process can find it.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        self.waiter.id()
    }

    /// Whether the call that gave this handle made the task. `false`: an earlier call had its
    /// [unique](crate::Call::unique) key and made it, or the handle was made from an id.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Ends the task; see [`Client::revoke`](crate::Client::revoke).
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn revoke(&self) -> Result<Revocation, Error> {
        self.client.revoke(self.id()).await
    }

    /// What the task tells of how far it is, with [`Context::progress`](crate::Context::progress), as a stream of values
    /// of type `P` that ends when the task ends, however it does. Starts with what it told last, if it runs already.
    /// Await the handle for its end.
    ///
    /// Values come in order; those that follow each other too fast are skipped. If a worker dies, the stream goes on with
    /// the next run, which may be less far. Only tasks whose progress somebody listens to cost more than the writes of
    /// their worker. A value whose message is lost comes within 3 s, unless a later one does.
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
    /// An item is an error if the value is not a `P` ([`Error::ProgressType`]; the next one may be), or if nothing is
    /// known of the task, as awaiting the handle would tell; the stream ends then.
    pub fn progress<P>(&self) -> ProgressStream<P> {
        ProgressStream::new(self.client.clone(), self.waiter.clone())
    }

    /// Where the task stands now.
    ///
    /// # Errors
    /// Redis does not answer, or knows nothing of the task: [`Error::NotFound`], [`Error::Expired`].
    pub async fn status(&self) -> Result<Status, Error> {
        if let Some(reply) = self.waiter.ended() {
            return Ok(reply.status);
        }
        match self.client.read(self.id()).await? {
            Some(state) => Ok(state.status),
            // Kafka has it, and a worker's claim makes the record again.
            None if self.waiter.is_fresh() => Ok(Status::Queued),
            None => Err(self.client.missing(self.id())),
        }
    }
}

impl<T: DeserializeOwned> TaskHandle<T> {
    /// The result if the task has ended, else `None`.
    ///
    /// # Errors
    /// As awaiting the handle; also if Redis does not answer.
    pub async fn result(&self) -> Result<Option<T>, Error> {
        if let Some(reply) = self.waiter.ended() {
            return output(Arc::unwrap_or_clone(reply)).map(Some);
        }
        match self.client.read(self.id()).await? {
            Some(state) if state.status.is_terminal() => {
                let id = self.id().clone();
                output(Reply { id, status: state.status, result: state.result, error: state.error }).map(Some)
            }
            Some(_) => Ok(None),
            None if self.waiter.is_fresh() => Ok(None),
            None => Err(self.client.missing(self.id())),
        }
    }

    /// Waits for the result, at most this long.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] when the time is over; else as awaiting the handle.
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
        let settled = std::task::ready!(Pin::new(&mut self.waiter).poll(cx));
        Poll::Ready(match settled {
            Settled::Ended(reply) => output(Arc::unwrap_or_clone(reply)),
            Settled::Missing => Err(self.client.missing(self.id())),
            Settled::Failed(error) => Err(error),
        })
    }
}

/// What an ended task means for who awaits it.
fn output<T: DeserializeOwned>(reply: Reply) -> Result<T, Error> {
    let Reply { id, status, result, error } = reply;
    let wrong = |e: serde_json::Error| Error::ResultType { id: id.clone(), detail: e.to_string() };
    match status {
        Status::Success => match result {
            Some(json) => serde_json::from_str(&json).map_err(wrong),
            None => Err(Error::NoResult { id }),
        },
        Status::Revoked => {
            let failure = error.and_then(|json| serde_json::from_str::<Failure>(&json).ok());
            Err(Error::Revoked { id, reason: failure.map_or_else(|| "it was asked to end".to_owned(), |f| f.message) })
        }
        _ => Err(serde_json::from_str::<Failure>(error.as_deref().unwrap_or("null")).map_err(wrong)?.into()),
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
