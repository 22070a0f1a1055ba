//! What was sent to a client or worker, and not read yet. Bounded: what does not fit becomes `Missed`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{Notice, Reply, Report};
use crate::{
    core::names::TaskId,
    wire::offer::{FreeAgain, Offer, OfferedRecord, Place, WorkerMessage},
};

/// Replies that one mailbox keeps, and notices of each other kind.
const MAILBOX_CAPACITY: usize = 100_000;
/// Bytes of replies and progress that one mailbox keeps.
const REPLY_BYTES: usize = 64 * 1_024 * 1_024;
/// Bytes of offered records that one mailbox keeps. Offers beyond that are lost, which costs their owners a moment.
const OFFERED_BYTES: usize = 16 * 1_024 * 1_024;

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
    /// Of replies and progress.
    reply_bytes: usize,
    ended: Vec<TaskId>,
    progress: HashMap<TaskId, Report>,
    revoked: Vec<TaskId>,
    own_again: bool,
    slots_free: bool,
    offers: VecDeque<Offer>,
    offered_bytes: usize,
    declined: Vec<Place>,
    no_slot: Vec<Place>,
    completed: Vec<Place>,
    free_again: VecDeque<FreeAgain>,
    missed: bool,
}

impl Mailbox {
    /// Puts replies in, or notes that they were missed.
    pub(crate) fn push(&self, batch: Vec<Reply>) {
        if batch.is_empty() {
            return;
        }
        let bytes: usize = batch.iter().map(Reply::size).sum();
        self.change(|inner| {
            if inner.replies + batch.len() > MAILBOX_CAPACITY || inner.reply_bytes + bytes > REPLY_BYTES {
                inner.missed = true;
            } else {
                inner.replies += batch.len();
                inner.reply_bytes += bytes;
                inner.batches.push_back(batch);
            }
        });
    }

    /// Puts in the id of a task that ended, whose outcome has to be asked for.
    pub(crate) fn ended(&self, id: TaskId) {
        self.change(
            |inner| if inner.ended.len() < MAILBOX_CAPACITY { inner.ended.push(id) } else { inner.missed = true },
        );
    }

    /// Puts in how far a task is, and drops what it reported before.
    pub(crate) fn progress(&self, report: Report) {
        self.change(|inner| {
            let before = inner.progress.get(&report.id).map(|report| report.progress.value.len());
            let bytes = inner.reply_bytes - before.unwrap_or(0) + report.progress.value.len();
            if bytes <= REPLY_BYTES && (before.is_some() || inner.progress.len() < MAILBOX_CAPACITY) {
                inner.reply_bytes = bytes;
                inner.progress.insert(report.id.clone(), report);
            } else {
                inner.missed = true;
            }
        });
    }

    /// Puts in a running task that is to be ended.
    pub(crate) fn revoke(&self, id: TaskId) {
        self.change(
            |inner| if inner.revoked.len() < MAILBOX_CAPACITY { inner.revoked.push(id) } else { inner.missed = true },
        );
    }

    /// Notes that the worker should ask for partitions; once, however often it comes.
    pub(crate) fn own_again(&self) {
        self.change(|inner| inner.own_again = true);
    }

    /// Notes that there are free slots.
    pub(crate) fn slots_free(&self) {
        self.change(|inner| inner.slots_free = true);
    }

    /// Puts in what another worker says. What does not fit is lost: its sender looks what became of the records, and announces its
    /// slots to all.
    pub(crate) fn message(&self, message: WorkerMessage) {
        self.change(|inner| match message {
            WorkerMessage::Offer(offer) => {
                let bytes = bytes_of(&offer);
                if inner.offered_bytes + bytes <= OFFERED_BYTES && inner.offers.len() < MAILBOX_CAPACITY {
                    inner.offered_bytes += bytes;
                    inner.offers.push_back(offer);
                }
            }
            WorkerMessage::Declined(places) => put(&mut inner.declined, places),
            WorkerMessage::NoSlot(places) => put(&mut inner.no_slot, places),
            WorkerMessage::Completed(places) => put(&mut inner.completed, places),
            WorkerMessage::FreeAgain(free) => {
                if inner.free_again.len() < MAILBOX_CAPACITY {
                    inner.free_again.push_back(free);
                }
            }
        });
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
        // Before the replies, which end the subscription to it.
        if !inner.progress.is_empty() {
            let reports: Vec<Report> = std::mem::take(&mut inner.progress).into_values().collect();
            inner.reply_bytes -= reports.iter().map(|report| report.progress.value.len()).sum::<usize>();
            return Some(Notice::Progress(reports));
        }
        if let Some(batch) = inner.batches.pop_front() {
            inner.replies -= batch.len();
            inner.reply_bytes -= batch.iter().map(Reply::size).sum::<usize>();
            return Some(Notice::Replies(batch));
        }
        if std::mem::take(&mut inner.own_again) {
            return Some(Notice::OwnAgain);
        }
        if !inner.completed.is_empty() {
            return Some(Notice::Completed(std::mem::take(&mut inner.completed)));
        }
        if !inner.declined.is_empty() {
            return Some(Notice::Declined(std::mem::take(&mut inner.declined)));
        }
        if !inner.no_slot.is_empty() {
            return Some(Notice::NoSlot(std::mem::take(&mut inner.no_slot)));
        }
        if let Some(free) = inner.free_again.pop_front() {
            return Some(Notice::FreeAgain(free));
        }
        if let Some(offer) = inner.offers.pop_front() {
            inner.offered_bytes -= bytes_of(&offer);
            return Some(Notice::Offer(offer));
        }
        if std::mem::take(&mut inner.slots_free) {
            return Some(Notice::SlotsFree);
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

fn bytes_of(offer: &Offer) -> usize {
    offer.records.iter().map(OfferedRecord::size).sum()
}

/// Adds places, if they fit.
fn put(to: &mut Vec<Place>, places: Vec<Place>) {
    if to.len() + places.len() <= MAILBOX_CAPACITY {
        to.extend(places);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::lifecycle::{Progress, Status};

    fn reply(id: usize) -> Reply {
        let id = id.to_string().parse().expect("short enough");
        Reply { id, task: None, status: Status::Success, result: None, error: None }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_reported_as_missed_after_what_does() {
        let mailbox = Mailbox::default();
        mailbox.push((0..MAILBOX_CAPACITY).map(reply).collect());
        mailbox.push(vec![reply(MAILBOX_CAPACITY)]);
        assert!(matches!(mailbox.next().await, Notice::Replies(batch) if batch.len() == MAILBOX_CAPACITY));
        assert_eq!(mailbox.next().await, Notice::Missed);
        mailbox.push(vec![reply(7)]);
        assert_eq!(mailbox.next().await, Notice::Replies(vec![reply(7)]));
    }

    #[tokio::test]
    async fn large_replies_and_reports_are_bounded_by_their_bytes() {
        let mailbox = Mailbox::default();
        let value: Arc<str> = "x".repeat(REPLY_BYTES / 4).into();
        let large = |id| Reply { result: Some(Arc::clone(&value)), ..reply(id) };
        let report = |id: usize, number| Report {
            id: reply(id).id,
            token: 1,
            progress: Progress { number, value: Arc::clone(&value) },
        };
        for _ in 0..2 {
            (0..3).for_each(|id| mailbox.push(vec![large(id)]));
            (1..9).for_each(|number| mailbox.progress(report(7, number)));
            mailbox.push(vec![large(3)]);
            mailbox.progress(report(8, 1));
            assert_eq!(mailbox.next().await, Notice::Progress(vec![report(7, 8)]), "each replaces the one before");
            for id in 0..3 {
                assert_eq!(mailbox.next().await, Notice::Replies(vec![large(id)]));
            }
            assert_eq!(mailbox.next().await, Notice::Missed, "one reply and one report did not fit");
        }
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
    async fn a_wish_to_ask_for_partitions_comes_once() {
        let mailbox = Mailbox::default();
        mailbox.own_again();
        mailbox.own_again();
        mailbox.miss();
        assert_eq!(mailbox.next().await, Notice::OwnAgain);
        assert_eq!(mailbox.next().await, Notice::Missed);
    }

    #[tokio::test]
    async fn offers_beyond_the_limit_are_lost_and_nothing_else_is() {
        let place = Place { source: 0, partition: 0, epoch: 1, offset: 7 };
        let (topic, value) = ("t".into(), vec![0; OFFERED_BYTES / 2].into());
        let record = OfferedRecord { place, topic, timestamp_ms: None, key: None, value, headers: Vec::new() };
        let offer = Offer { owner: "w".into(), records: vec![record] };
        let mailbox = Mailbox::default();
        (0..3).for_each(|_| mailbox.message(WorkerMessage::Offer(offer.clone())));
        mailbox.message(WorkerMessage::Declined(vec![place]));
        mailbox.message(WorkerMessage::Completed(vec![place]));
        mailbox.slots_free();
        let notices = [Notice::Completed(vec![place]), Notice::Declined(vec![place]), Notice::Offer(offer.clone())];
        for notice in notices.into_iter().chain([Notice::Offer(offer.clone()), Notice::SlotsFree]) {
            assert_eq!(mailbox.next().await, notice);
        }
        mailbox.message(WorkerMessage::Offer(offer.clone()));
        assert_eq!(mailbox.next().await, Notice::Offer(offer), "there is room again");
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_nothing() {
        let mailbox = Mailbox::default();
        assert!(futures_util::FutureExt::now_or_never(mailbox.next()).is_none());
        mailbox.push(vec![reply(1)]);
        assert_eq!(mailbox.next().await, Notice::Replies(vec![reply(1)]));
    }
}
