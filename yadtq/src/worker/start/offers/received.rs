//! The records of others that this worker runs, from the offer until their owners know what became of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    core::names::WorkerId,
    wire::offer::{FreeAgain, Place, WorkerMessage},
    worker::job::{Job, Lane, Position},
};

/// How long slots that are free again wait for an offer of the worker whose record ran there, before they are announced to all.
const OFFER_WAIT: Duration = Duration::from_millis(50);

/// The offers that a worker received.
pub(in crate::worker) struct Received {
    worker: WorkerId,
    /// What is to be claimed.
    waiting: [VecDeque<Arc<Job>>; 2],
    /// By their places here.
    records: HashMap<Place, Record>,
    /// What owners are to learn.
    answers: Vec<(Record, Answer)>,
    /// Slots that were reported to owners as free again, until they offer something or [`OFFER_WAIT`] is over.
    reported: HashMap<WorkerId, Reported>,
}

struct Record {
    owner: WorkerId,
    /// Its place there.
    place: Place,
    /// `None`: it could not be read.
    job: Option<Arc<Job>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Declined,
    NoSlot,
    Completed,
}

struct Reported {
    slots: [usize; 2],
    until: Instant,
}

impl Received {
    pub(super) fn new(worker: &WorkerId) -> Self {
        let (worker, waiting) = (Arc::clone(worker), <[_; 2]>::default());
        Self { worker, waiting, records: HashMap::new(), answers: Vec::new(), reported: HashMap::new() }
    }

    /// Takes an offered record if there is a free slot for it, else declines it. `free`: slots of its lane for which this worker
    /// has nothing, not even a record that was received. Returns whether the record was taken.
    pub(in crate::worker) fn receive(&mut self, job: Arc<Job>, owner: &WorkerId, place: Place, free: usize) -> bool {
        let here = Place::from(job.at);
        if free == 0 {
            self.answers.push((Record { owner: Arc::clone(owner), place, job: None }, Answer::NoSlot));
            return false;
        }
        if self.records.contains_key(&here) {
            self.decline_unread(owner, place);
            return false;
        }
        self.records.insert(here, Record { owner: Arc::clone(owner), place, job: Some(Arc::clone(&job)) });
        self.waiting[job.lane() as usize].push_back(job);
        true
    }

    /// Declines a record that this worker cannot run.
    pub(in crate::worker) fn decline_unread(&mut self, owner: &WorkerId, place: Place) {
        self.answers.push((Record { owner: Arc::clone(owner), place, job: None }, Answer::Declined));
    }

    /// Number of records that are to be claimed.
    pub(in crate::worker) fn waiting(&self, lane: Lane) -> usize {
        self.waiting[lane as usize].len()
    }

    /// The next record to claim.
    pub(in crate::worker) fn pop(&mut self, lane: Lane) -> Option<Arc<Job>> {
        self.waiting[lane as usize].pop_front()
    }

    /// A claim was not answered: the record is the first to be claimed again.
    pub(in crate::worker) fn put_back(&mut self, job: Arc<Job>) {
        self.waiting[job.lane() as usize].push_front(job);
    }

    /// The record has ended or was published anew.
    pub(in crate::worker) fn completed(&mut self, at: Position) {
        self.answer(at, Answer::Completed);
    }

    /// This worker does not run the record, or not any more.
    pub(in crate::worker) fn declined(&mut self, at: Position) {
        self.answer(at, Answer::Declined);
    }

    /// Another run has the task. The owner looks what becomes of it.
    pub(in crate::worker) fn forget(&mut self, at: Position) {
        self.records.remove(&Place::from(at));
    }

    /// Declines what is not claimed yet.
    pub(in crate::worker) fn decline_all(&mut self) {
        let waiting = self.waiting.each_mut().map(std::mem::take);
        waiting.into_iter().flatten().for_each(|job| self.declined(job.at));
    }

    /// The answers so far, a message for each owner and kind of answer. `free`: slots of each lane for which there is nothing and that
    /// are not announced. Those in which records of an owner ran are reported to it, so that its next records come without a search.
    pub(in crate::worker) fn take_answers(
        &mut self, mut free: [usize; 2], now: Instant,
    ) -> Vec<(WorkerId, WorkerMessage)> {
        let mut messages: HashMap<WorkerId, [Vec<Place>; 3]> = HashMap::new();
        let mut again: HashMap<(WorkerId, Arc<str>, Arc<str>), u32> = HashMap::new();
        for (Record { owner, place, job }, answer) in self.answers.drain(..) {
            if let Some(job) = job.filter(|job| answer == Answer::Completed && free[job.lane() as usize] > 0) {
                free[job.lane() as usize] -= 1;
                let none = Reported { slots: [0; 2], until: now };
                let reported = self.reported.entry(Arc::clone(&owner)).or_insert(none);
                reported.slots[job.lane() as usize] += 1;
                reported.until = now + OFFER_WAIT;
                let like = (Arc::clone(&owner), Arc::clone(&job.ask.queue), Arc::clone(&job.ask.task));
                *again.entry(like).or_default() += 1;
            }
            messages.entry(owner).or_default()[answer as usize].push(place);
        }
        let mut out = Vec::new();
        for (owner, places) in messages {
            let kinds = [WorkerMessage::Declined, WorkerMessage::NoSlot, WorkerMessage::Completed];
            let messages = kinds.into_iter().zip(places).filter(|(_, places)| !places.is_empty());
            out.extend(messages.map(|(message, places)| (Arc::clone(&owner), message(places))));
        }
        out.extend(again.into_iter().map(|((owner, queue, task), count)| {
            (owner, WorkerMessage::FreeAgain(FreeAgain { worker: Arc::clone(&self.worker), queue, task, count }))
        }));
        out
    }

    /// Number of slots of a lane for which an owner may offer something at any moment.
    pub(in crate::worker) fn reported(&self, lane: Lane) -> usize {
        self.reported.values().map(|reported| reported.slots[lane as usize]).sum()
    }

    /// This worker has offered something, or has nothing to offer. Returns whether slots were reported to it.
    pub(in crate::worker) fn offered_by(&mut self, owner: &str) -> bool {
        self.reported.remove(owner).is_some()
    }

    /// Waits no more for those that have offered nothing in time.
    pub(in crate::worker) fn expire(&mut self, now: Instant) {
        self.reported.retain(|_, reported| reported.until > now);
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(in crate::worker) fn next_expiry(&self) -> Option<Instant> {
        self.reported.values().map(|reported| reported.until).min()
    }

    /// Whether all owners know what they should.
    pub(in crate::worker) fn has_answered_all(&self) -> bool {
        self.answers.is_empty()
    }

    fn answer(&mut self, at: Position, answer: Answer) {
        if let Some(record) = self.records.remove(&Place::from(at)) {
            self.answers.push((record, answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(offset: i64) -> Arc<Job> {
        let mut job = Job::for_test(r#"{"task-id":"t","task":"noop","args":[]}"#);
        (job.at.epoch, job.at.offset) = (Position::FOREIGN, offset);
        Arc::new(job)
    }

    fn place(offset: i64) -> Place {
        Place { source: 9, partition: 8, epoch: 7, offset }
    }

    #[test]
    fn an_owner_learns_once_what_became_of_its_record() {
        let (mut received, owner) = (Received::new(&"me".into()), "owner".into());
        for offset in 1..=4 {
            assert!(received.receive(job(offset), &owner, place(offset), 9));
        }
        assert!(!received.receive(job(5), &owner, place(5), 0));
        assert!(!received.receive(job(4), &"other".into(), place(4), 9));
        assert_eq!(received.waiting(Lane::Async), 4);
        let jobs: Vec<_> = std::iter::from_fn(|| received.pop(Lane::Async)).collect();
        received.completed(jobs[0].at);
        received.completed(jobs[0].at);
        received.declined(jobs[1].at);
        received.forget(jobs[2].at);
        received.completed(jobs[2].at);
        received.put_back(Arc::clone(&jobs[3]));
        received.decline_all();
        let mut messages = received.take_answers([0; 2], Instant::now());
        messages.sort_by_key(|(owner, message)| (Arc::clone(owner), message.encode()));
        let expected = [
            ("other".into(), WorkerMessage::Declined(vec![place(4)])),
            (Arc::clone(&owner), WorkerMessage::Completed(vec![place(1)])),
            (Arc::clone(&owner), WorkerMessage::Declined(vec![place(2), place(4)])),
            (owner, WorkerMessage::NoSlot(vec![place(5)])),
        ];
        assert_eq!(messages, expected);
        assert!(received.take_answers([9; 2], Instant::now()).is_empty() && received.records.is_empty());
    }

    #[test]
    fn an_owner_learns_which_slots_are_free_again_and_they_wait_for_its_offer() {
        let (mut received, owner, now) = (Received::new(&"me".into()), WorkerId::from("owner"), Instant::now());
        let mut answers = |offsets: std::ops::Range<i64>, free| {
            for offset in offsets {
                assert!(received.receive(job(offset), &owner, place(offset), 9));
                received.completed(job(offset).at);
            }
            let mut answers = received.take_answers([free, 9], now);
            answers.retain(|(_, message)| matches!(message, WorkerMessage::FreeAgain(_)));
            (answers, received.reported(Lane::Async))
        };
        let free = FreeAgain { worker: "me".into(), queue: "default".into(), task: "noop".into(), count: 2 };
        assert_eq!(answers(0..3, 2), (vec![(Arc::clone(&owner), WorkerMessage::FreeAgain(free))], 2));
        assert_eq!(answers(3..4, 0), (vec![], 2), "no slot is free, or all are announced");
        assert!(received.offered_by("owner") && !received.offered_by("owner"));
        assert_eq!((received.reported(Lane::Async), received.next_expiry()), (0, None));
        received.receive(job(5), &owner, place(5), 1);
        received.declined(job(5).at);
        assert_eq!(received.take_answers([1; 2], now).len(), 1, "it did not run here");
        received.receive(job(6), &owner, place(6), 1);
        received.completed(job(6).at);
        assert_eq!(received.take_answers([1; 2], now).len(), 2);
        assert_eq!(received.next_expiry(), Some(now + OFFER_WAIT));
        received.expire(now + OFFER_WAIT);
        assert_eq!(received.reported(Lane::Async), 0, "the owner has gone");
    }
}
