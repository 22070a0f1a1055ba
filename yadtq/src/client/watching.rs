//! The tasks to whose progress somebody in this process listens, with the latest report of each.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{core::names::TaskId, store::Report};

/// The tasks with a progress listener in this process, and the latest report of each.
#[derive(Debug, Default)]
pub(super) struct Watching(Mutex<HashMap<TaskId, watch::Sender<Option<Report>>>>);

impl Watching {
    pub(super) fn subscribe(&self, id: &TaskId) -> watch::Receiver<Option<Report>> {
        let mut watched = self.lock();
        watched.retain(|_, sender| sender.receiver_count() > 0);
        let mut receiver = watched.entry(id.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe();
        // A report that other listeners have already received is new to this one.
        if receiver.borrow().is_some() {
            receiver.mark_changed();
        }
        receiver
    }

    /// Passes a report to the listeners of its task, unless they have received it or a later one.
    pub(super) fn notify(&self, report: Report) {
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

    /// The tasks that still have a listener.
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
