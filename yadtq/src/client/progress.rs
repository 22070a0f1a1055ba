//! The progress of running tasks, as streams.
//!
//! A stream keeps only the latest report that was not read yet. So a slow reader skips values, and memory is bounded.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    Client,
    waiting::{WaitOutcome, Waiter},
};
use crate::{core::names::TaskId, error::Error, store::Report};

/// The progress of a task, as a stream that ends with the task; see [`TaskHandle::progress`](crate::TaskHandle::progress).
#[must_use = "a stream does nothing unless it is polled"]
pub struct ProgressStream<P> {
    id: TaskId,
    values: BoxStream<'static, Result<Arc<str>, Error>>,
    value: PhantomData<fn() -> P>,
}

impl<P> ProgressStream<P> {
    pub(crate) fn new(client: Client, waiter: Waiter) -> Self {
        let id = waiter.id().clone();
        let reports = client.inner.waiting.progress.subscribe(&id);
        waiter.attach();
        let values = stream::unfold(Some((client, waiter, reports)), next).boxed();
        Self { id, values, value: PhantomData }
    }
}

impl<P: DeserializeOwned> ProgressStream<P> {
    /// The next value; `None`: the task has ended. It is [`StreamExt::next`] without an import of that trait.
    ///
    /// # Errors
    /// See [`TaskHandle::progress`](crate::TaskHandle::progress).
    pub async fn next(&mut self) -> Option<Result<P, Error>> {
        StreamExt::next(self).await
    }
}

type State = Option<(Client, Waiter, watch::Receiver<Option<Report>>)>;

async fn next(state: State) -> Option<(Result<Arc<str>, Error>, State)> {
    let (client, mut waiter, mut reports) = state?;
    loop {
        tokio::select! {
            // Progress that was reported before the end is returned before the end.
            biased;
            changed = reports.changed() => {
                // The table keeps the sender as long as somebody listens.
                changed.ok()?;
                let value = reports.borrow_and_update().as_ref().map(|report| Arc::clone(&report.progress.value));
                if let Some(value) = value {
                    return Some((Ok(value), Some((client, waiter, reports))));
                }
            }
            outcome = &mut waiter => return match outcome {
                WaitOutcome::Ended(_) => None,
                WaitOutcome::Missing => Some((Err(client.missing(waiter.id())), None)),
                WaitOutcome::Failed(error) => Some((Err(error), None)),
            },
        }
    }
}

impl<P: DeserializeOwned> Stream for ProgressStream<P> {
    type Item = Result<P, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let value = ready!(self.values.poll_next_unpin(cx));
        Poll::Ready(value.map(|value| {
            let wrong = |e: serde_json::Error| Error::ProgressType { id: self.id.clone(), detail: e.to_string() };
            serde_json::from_str(&value?).map_err(wrong)
        }))
    }
}

impl<P> Unpin for ProgressStream<P> {}

impl<P> fmt::Debug for ProgressStream<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProgressStream").field(&self.id).finish()
    }
}
