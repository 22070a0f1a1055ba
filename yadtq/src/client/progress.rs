//! How far running tasks are, as streams.
//!
//! A stream holds the latest report that it has not told: whoever is slow skips values, and nothing piles up.

use std::{
    collections::HashMap,
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Client, Settled, Waiter};
use crate::{core::names::TaskId, error::Error, store::Report};

/// The tasks whose progress somebody here listens to.
#[derive(Debug, Default)]
pub(super) struct Watching(Mutex<HashMap<TaskId, watch::Sender<Option<Report>>>>);

impl Watching {
    fn subscribe(&self, id: &TaskId) -> watch::Receiver<Option<Report>> {
        let mut watched = self.lock();
        watched.retain(|_, sender| sender.receiver_count() > 0);
        let mut receiver = watched.entry(id.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe();
        // What others have been told already is news to this one.
        if receiver.borrow().is_some() {
            receiver.mark_changed();
        }
        receiver
    }

    /// Passes a report on to whoever listens, unless it was told already.
    pub(super) fn tell(&self, report: Report) {
        if let Some(sender) = self.lock().get(&report.id) {
            sender.send_if_modified(|known| {
                let is_news = known.as_ref().is_none_or(|known| known.order() < report.order());
                if is_news {
                    *known = Some(report);
                }
                is_news
            });
        }
    }

    /// The tasks that somebody still listens to.
    pub(super) fn ids(&self) -> Vec<TaskId> {
        let mut watched = self.lock();
        watched.retain(|_, sender| sender.receiver_count() > 0);
        watched.keys().cloned().collect()
    }

    pub(super) fn contains(&self, id: &TaskId) -> bool {
        self.lock().get(id).is_some_and(|sender| sender.receiver_count() > 0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, watch::Sender<Option<Report>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a task tells of how far it is, until it ends; see [`TaskHandle::progress`](crate::TaskHandle::progress).
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
    /// The next value; `None`: the task has ended. As [`StreamExt::next`], for those who need nothing else of it.
    ///
    /// # Errors
    /// As the stream's items; see [`TaskHandle::progress`](crate::TaskHandle::progress).
    pub async fn next(&mut self) -> Option<Result<P, Error>> {
        StreamExt::next(self).await
    }
}

type State = Option<(Client, Waiter, watch::Receiver<Option<Report>>)>;

async fn next(state: State) -> Option<(Result<Arc<str>, Error>, State)> {
    let (client, mut waiter, mut reports) = state?;
    loop {
        tokio::select! {
            // What was told before the end comes before the end.
            biased;
            changed = reports.changed() => {
                // The table keeps the sender for as long as somebody listens.
                changed.ok()?;
                let value = reports.borrow_and_update().as_ref().map(|report| Arc::clone(&report.progress.value));
                if let Some(value) = value {
                    return Some((Ok(value), Some((client, waiter, reports))));
                }
            }
            settled = &mut waiter => return match settled {
                Settled::Ended(_) => None,
                Settled::Missing => Some((Err(client.missing(waiter.id())), None)),
                Settled::Failed(error) => Some((Err(error), None)),
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
