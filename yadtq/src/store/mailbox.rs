//! What has been told to a waiting client and not read yet. Bounded: what does not fit becomes `Missed`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{Notice, Reply, Report};
use crate::core::names::TaskId;

/// Replies that one mailbox keeps.
const CAPACITY: usize = 100_000;

/// A bounded queue of replies with one reader.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Vec<Reply>>,
    replies: usize,
    ended: Vec<TaskId>,
    progress: HashMap<TaskId, Report>,
    revoked: Vec<TaskId>,
    missed: bool,
}

impl Mailbox {
    /// Puts replies in, or notes that they were missed.
    pub(crate) fn push(&self, batch: Vec<Reply>) {
        if batch.is_empty() {
            return;
        }
        self.change(|inner| {
            if inner.replies + batch.len() > CAPACITY {
                inner.missed = true;
            } else {
                inner.replies += batch.len();
                inner.batches.push_back(batch);
            }
        });
    }

    /// Notes a task whose outcome has to be asked for.
    pub(crate) fn ended(&self, id: TaskId) {
        self.change(|inner| if inner.ended.len() < CAPACITY { inner.ended.push(id) } else { inner.missed = true });
    }

    /// Notes how far a task is, in the place of what it said before.
    pub(crate) fn progress(&self, report: Report) {
        self.change(|inner| {
            if inner.progress.len() < CAPACITY || inner.progress.contains_key(&report.id) {
                inner.progress.insert(report.id.clone(), report);
            } else {
                inner.missed = true;
            }
        });
    }

    /// Notes a running task that is to be ended.
    pub(crate) fn revoke(&self, id: TaskId) {
        self.change(|inner| if inner.revoked.len() < CAPACITY { inner.revoked.push(id) } else { inner.missed = true });
    }

    /// Notes that something may have been missed.
    pub(crate) fn miss(&self) {
        self.change(|inner| inner.missed = true);
    }

    /// The next notice. Cancel safe.
    pub(crate) async fn next(&self) -> Notice {
        loop {
            if let Some(notice) = self.take() {
                return notice;
            }
            // A permit is kept if the mailbox was filled since `take`.
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Notice> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the replies, which end what listens to it.
        if !inner.progress.is_empty() {
            return Some(Notice::Progress(std::mem::take(&mut inner.progress).into_values().collect()));
        }
        if let Some(batch) = inner.batches.pop_front() {
            inner.replies -= batch.len();
            return Some(Notice::Replies(batch));
        }
        if !inner.revoked.is_empty() {
            return Some(Notice::Revoke(std::mem::take(&mut inner.revoked)));
        }
        if !inner.ended.is_empty() {
            return Some(Notice::Ended(std::mem::take(&mut inner.ended)));
        }
        std::mem::take(&mut inner.missed).then_some(Notice::Missed)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lifecycle::{Progress, Status};

    fn reply(id: usize) -> Reply {
        let id = id.to_string().parse().expect("short enough");
        Reply { id, status: Status::Success, result: None, error: None }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_told_as_missed_after_what_does() {
        let mailbox = Mailbox::default();
        mailbox.push((0..CAPACITY).map(reply).collect());
        mailbox.push(vec![reply(CAPACITY)]);
        assert!(matches!(mailbox.next().await, Notice::Replies(batch) if batch.len() == CAPACITY));
        assert_eq!(mailbox.next().await, Notice::Missed);
        mailbox.push(vec![reply(7)]);
        assert_eq!(mailbox.next().await, Notice::Replies(vec![reply(7)]));
    }

    #[tokio::test]
    async fn the_latest_progress_of_a_task_comes_before_its_end() {
        let mailbox = Mailbox::default();
        let id: TaskId = "7".parse().expect("short enough");
        let report = |number| Report { id: id.clone(), token: 1, progress: Progress { number, value: "1".into() } };
        mailbox.progress(report(1));
        mailbox.push(vec![reply(7)]);
        mailbox.progress(report(2));
        assert_eq!(mailbox.next().await, Notice::Progress(vec![report(2)]));
        assert_eq!(mailbox.next().await, Notice::Replies(vec![reply(7)]));
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_nothing() {
        let mailbox = Mailbox::default();
        assert!(futures_util::FutureExt::now_or_never(mailbox.next()).is_none());
        mailbox.push(vec![reply(1)]);
        assert_eq!(mailbox.next().await, Notice::Replies(vec![reply(1)]));
    }
}
