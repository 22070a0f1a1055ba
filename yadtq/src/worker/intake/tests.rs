//! What comes from a poll, and what is committed, without a broker.

use bytes::Bytes;

use super::*;
use crate::{
    broker::Committed,
    core::{controls::ControlRecord, priority::Priority},
};

const NORMAL: SourceId = SourceId { queue: 0, priority: Priority::Normal };

fn record(partition: i32, offset: i64, value: &str) -> Incoming {
    let value = Bytes::from(value.to_owned());
    let timestamp_ms = Some(1_000 + offset.unsigned_abs());
    Incoming { partition, offset, timestamp_ms, key: None, value, headers: Vec::new() }
}

fn task(offset: i64) -> Incoming {
    record(0, offset, &format!(r#"{{"task-id":"t{offset}","task":"noop","args":[]}}"#))
}

struct Polls {
    intake: Intake,
    out: Effects,
    now: Instant,
}

impl Polls {
    /// An intake that has partition 0.
    fn new() -> Self {
        Self::from(None)
    }

    /// An intake that has partition 0, for which this was committed.
    fn from(committed: Option<Committed>) -> Self {
        let (plan, namespace, now) = (Arc::new(Plan::for_test()), Namespace::default(), Instant::now());
        let mut intake = Intake::new(&"w".into(), &plan, &namespace, now);
        intake.joined(NORMAL);
        let mut polls = Self { intake, out: Effects::new(), now };
        polls.events(vec![Event::Assigned(vec![Assigned { partition: 0, committed }])]);
        polls
    }

    fn events(&mut self, events: Vec<Event>) {
        self.intake.polled(NORMAL, events, self.now, &mut self.out);
    }

    fn records(&mut self, records: impl IntoIterator<Item = Incoming>) {
        self.events(vec![Event::Records(records.into_iter().collect())]);
    }

    fn take(&mut self) -> Option<Arc<Job>> {
        self.intake.take(Lane::Async)
    }

    /// The offsets to commit so far.
    fn stored(&mut self) -> Vec<i64> {
        let stored = |effect| match effect {
            Effect::StoreOffset(NORMAL, 0, next, _) => Some(next),
            _ => None,
        };
        self.out.drain(..).filter_map(stored).collect()
    }

    /// The jobs of these records, which have been taken to be claimed.
    fn taken(&mut self, records: impl IntoIterator<Item = Incoming>) -> Vec<Arc<Job>> {
        self.records(records);
        std::iter::from_fn(|| self.take()).collect()
    }

    fn complete(&mut self, jobs: &[Arc<Job>]) {
        jobs.iter().for_each(|job| self.intake.complete(job.at, &mut self.out));
    }

    fn wait(&mut self, time: Duration) {
        self.wait_with(time, &|_| false);
    }

    /// As [`wait`](Self::wait); `waits`: the records that wait elsewhere.
    fn wait_with(&mut self, time: Duration, waits: &dyn Fn(&Job) -> bool) {
        self.now += time;
        self.intake.due(self.now, waits, &mut self.out);
    }

    /// The offsets of records that are to be carried, of those so far.
    fn carried(&mut self) -> Vec<i64> {
        let carried = |effect| match effect {
            Effect::Carry(job) => Some(job.at.offset),
            _ => None,
        };
        self.out.drain(..).filter_map(carried).collect()
    }
}

#[test]
fn offsets_are_stored_once_everything_below_them_is_complete() {
    let mut polls = Polls::new();
    polls.records((0..3).map(task));
    let jobs: Vec<_> = std::iter::from_fn(|| polls.take()).collect();
    assert_eq!(jobs.len(), 3);
    for (job, stored) in [(&jobs[1], vec![]), (&jobs[0], vec![2_i64]), (&jobs[2], vec![3])] {
        polls.intake.complete(job.at, &mut polls.out);
        assert_eq!(polls.stored(), stored);
    }
    polls.intake.complete(jobs[2].at, &mut polls.out);
    assert!(polls.stored().is_empty(), "completed twice");
}

#[test]
fn what_is_no_task_becomes_a_dead_letter_and_its_neighbours_go_on() {
    let mut polls = Polls::new();
    polls.records([record(0, 0, "{"), record(0, 1, ""), task(2), record(7, 3, "not ours")]);
    let unreadable = |effect| match effect {
        Effect::Unreadable { at, .. } => Some(at.offset),
        _ => None,
    };
    assert_eq!(polls.out.drain(..).filter_map(unreadable).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(polls.take().unwrap().at.offset, 2);
    assert!(polls.take().is_none());
}

#[test]
fn a_partition_that_is_gone_takes_what_waits_with_it() {
    let mut polls = Polls::new();
    polls.records((0..3).map(task));
    let (running, asks) = (polls.take().unwrap(), polls.take().unwrap());
    polls.events(vec![Event::Revoked(vec![0])]);
    assert!(polls.out.iter().any(|effect| matches!(effect, Effect::GiveBack { partitions, .. } if *partitions == [0])));
    polls.intake.ask(asks);
    assert!(polls.take().is_none(), "neither what waited nor what asks again");
    polls.events(vec![Event::Assigned(vec![Assigned { partition: 0, committed: None }])]);
    assert!(!polls.intake.owns(running.at), "another assignment");
    polls.intake.complete(running.at, &mut polls.out);
    assert!(polls.stored().is_empty());
}

#[test]
fn one_of_an_ordering_key_is_ready_at_a_time() {
    let mut polls = Polls::new();
    let keyed = |offset| record(0, offset, r#"{"task-id":"t","task":"noop","args":[],"ordering-key":"k"}"#);
    polls.records((0..2).map(keyed));
    let head = polls.take().unwrap();
    assert!(polls.take().is_none());
    polls.intake.complete(head.at, &mut polls.out);
    assert_eq!(polls.take().unwrap().at.offset, 1);
}

#[test]
fn a_log_that_starts_over_is_counted_from_scratch() {
    let mut polls = Polls::new();
    polls.records((5..7).map(task));
    let before = polls.take().unwrap();
    polls.records([task(0)]);
    assert_eq!(polls.stored(), [0]);
    polls.intake.complete(before.at, &mut polls.out);
    assert!(polls.stored().is_empty(), "it was a record of the earlier log");
}

#[test]
fn a_full_source_is_not_polled_until_there_is_room() {
    let mut polls = Polls::new();
    polls.intake.poll(&mut polls.out);
    assert!(matches!(polls.out.pop_back(), Some(Effect::Poll(NORMAL))));
    polls.intake.poll(&mut polls.out);
    assert!(polls.out.is_empty(), "one poll at a time");
    polls.records((0..5_000).map(task));
    polls.intake.poll(&mut polls.out);
    assert!(polls.out.is_empty(), "it is full");
    (0..4_000).for_each(|_| drop(polls.take()));
    polls.intake.poll(&mut polls.out);
    assert!(matches!(polls.out.pop_back(), Some(Effect::Poll(NORMAL))));
}

#[test]
fn a_partition_whose_window_is_full_is_paused_until_half_of_it_is_done() {
    let mut polls = Polls::new();
    polls.records((0..10_000).map(task));
    assert!(matches!(polls.out.pop_back(), Some(Effect::Pause(NORMAL, 0))));
    let jobs: Vec<_> = std::iter::from_fn(|| polls.take()).collect();
    let mut complete = |offsets: std::ops::Range<usize>| {
        polls.out.clear();
        jobs[offsets].iter().for_each(|job| polls.intake.complete(job.at, &mut polls.out));
        polls.out.iter().any(|effect| matches!(effect, Effect::Resume(NORMAL, 0)))
    };
    assert!(!complete(1..10_000), "its oldest record is open");
    assert!(complete(0..1));
}

#[test]
fn a_paused_queue_gives_nothing_and_a_purged_one_gives_up_what_is_below_its_mark() {
    let mut polls = Polls::new();
    polls.records((0..3).map(task));
    let mut controls = ControlState::default();
    controls.take(ControlRecord::Pause { queue: "default".to_owned(), at: 1 });
    polls.intake.apply(&controls);
    assert!(polls.take().is_none());
    controls.take(ControlRecord::Resume { queue: "default".to_owned(), at: 2 });
    let below = [(Priority::Normal, vec![(0, 2)])].into();
    controls.take(ControlRecord::Purge { queue: "default".to_owned(), at: 3, below });
    polls.intake.apply(&controls);
    let mut purged = Vec::new();
    polls.intake.take_purged(1, &mut purged);
    polls.intake.take_purged(10, &mut purged);
    assert_eq!(purged.iter().map(|job| job.at.offset).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(polls.take().unwrap().at.offset, 2);
}

#[test]
fn a_stopped_intake_takes_nothing_more() {
    let mut polls = Polls::new();
    polls.records((0..3).map(task));
    polls.intake.stop();
    polls.records((3..6).map(task));
    polls.intake.poll(&mut polls.out);
    assert!(polls.take().is_none());
    assert!(!polls.out.iter().any(|effect| matches!(effect, Effect::Poll(_))));
}

#[test]
fn what_ended_out_of_order_is_named_twice_a_second_and_before_its_partition_is_given() {
    let mut polls = Polls::new();
    let jobs = polls.taken((0..6).map(task));
    polls.complete(&[Arc::clone(&jobs[1]), Arc::clone(&jobs[3])]);
    assert!(polls.stored().is_empty());
    assert_eq!(polls.intake.next_due(), Some(polls.now + STORE_INTERVAL));
    polls.wait(STORE_INTERVAL);
    let Some(Effect::StoreOffset(NORMAL, 0, 0, metadata)) = polls.out.pop_front() else { panic!("{:?}", polls.out) };
    assert_eq!(metadata, "1 1000 1005 BBBB", "1 and 3");
    polls.complete(&jobs[4..5]);
    assert!(polls.stored().is_empty());
    polls.intake.store(NORMAL, &[0], &mut polls.out);
    assert_eq!(polls.stored(), [0], "although it stands still");
    polls.intake.store(NORMAL, &[0], &mut polls.out);
    assert!(polls.stored().is_empty(), "nothing new");
    polls.complete(&[Arc::clone(&jobs[2]), Arc::clone(&jobs[0])]);
    assert_eq!(polls.stored(), [5], "at once, since only what has not ended is left");
}

#[test]
fn what_the_owner_before_has_named_is_complete_when_it_comes() {
    let metadata = "1 1000 1005 BBBC".to_owned();
    let mut polls = Polls::from(Some(Committed { next: 0, metadata }));
    let jobs = polls.taken((0..6).map(task));
    assert_eq!(jobs.iter().map(|job| job.at.offset).collect::<Vec<_>>(), [0, 2, 5], "1, 3 and 4 have ended");
    polls.complete(&jobs[..2]);
    assert_eq!(polls.stored(), [5], "they count");
    polls.complete(&jobs[2..]);
    assert_eq!(polls.stored(), [6]);
    polls.records([task(0)]);
    assert!(polls.take().is_some(), "it is of another log");
}

#[test]
fn an_old_head_that_holds_others_back_is_carried_once() {
    let mut polls = Polls::new();
    let jobs = polls.taken((0..4).map(task));
    polls.wait(Duration::from_secs(100));
    assert!(polls.carried().is_empty(), "it holds nothing back");
    polls.complete(&jobs[2..3]);
    polls.wait(STORE_INTERVAL);
    assert_eq!(polls.carried(), [0, 1]);
    assert_eq!(polls.intake.next_due(), Some(polls.now + CARRY_INTERVAL), "it looks again");
    polls.wait(CARRY_INTERVAL);
    assert!(polls.carried().is_empty(), "they are being carried");
    polls.intake.carried(&jobs[0], false, polls.now, &|_| false, &mut polls.out);
    polls.wait(CARRY_INTERVAL);
    assert_eq!(polls.carried(), [0], "it did not work");
    polls.intake.carried(&jobs[1], true, polls.now, &|_| false, &mut polls.out);
    polls.intake.carried(&jobs[0], true, polls.now, &|_| false, &mut polls.out);
    assert_eq!(polls.stored(), [3]);
    polls.complete(&jobs[..2]);
    assert!(polls.stored().is_empty(), "their runs end later");
    // The copies of both.
    let copies = polls.taken((4..6).map(task));
    polls.complete(&[Arc::clone(&jobs[3]), Arc::clone(&copies[1])]);
    polls.wait(Duration::from_secs(50));
    assert!(polls.carried().is_empty(), "a copy is as old as it is");
    polls.wait(Duration::from_secs(10));
    assert_eq!(polls.carried(), [4]);
}

#[test]
fn a_record_that_was_carried_is_neither_owned_nor_claimed_again() {
    let mut polls = Polls::new();
    let jobs = polls.taken((0..2).map(task));
    polls.complete(&jobs[1..]);
    polls.intake.carried(&jobs[0], true, polls.now, &|_| false, &mut polls.out);
    assert!(!polls.intake.owns(jobs[0].at));
    polls.intake.ask(Arc::clone(&jobs[0]));
    polls.intake.put_back(Arc::clone(&jobs[0]));
    assert!(polls.take().is_none());
}

#[test]
fn neither_what_has_a_place_to_keep_nor_what_waits_for_its_claim_is_carried_for_its_age() {
    let keyed = record(0, 0, r#"{"task-id":"k","task":"noop","args":[],"ordering-key":"k"}"#);
    for first in [keyed, record(0, 0, "{")] {
        let mut polls = Polls::new();
        let jobs = polls.taken([first].into_iter().chain((1..4).map(task)));
        polls.complete(&jobs[jobs.len() - 1..]);
        polls.wait(Duration::from_secs(100));
        assert!(polls.carried().is_empty());
    }
    let mut polls = Polls::new();
    let jobs = polls.taken((0..4).map(task));
    polls.intake.ask(Arc::clone(&jobs[0]));
    polls.complete(&jobs[3..]);
    polls.wait(Duration::from_secs(100));
    assert!(polls.carried().is_empty());
    assert!(polls.take().is_some());
    polls.wait(CARRY_INTERVAL);
    assert_eq!(polls.carried(), [0, 1, 2]);
}

#[test]
fn what_waits_for_a_worker_that_knows_it_is_not_carried_for_its_age() {
    let mut polls = Polls::new();
    let jobs = polls.taken((0..3).map(task));
    polls.complete(&jobs[2..]);
    polls.wait_with(Duration::from_secs(100), &|job| job.at.offset == 0);
    assert!(polls.carried().is_empty());
    polls.wait(CARRY_INTERVAL);
    assert_eq!(polls.carried(), [0, 1]);
}

#[test]
fn a_head_that_keeps_all_others_from_being_read_is_carried_at_once() {
    let mut polls = Polls::new();
    let jobs = polls.taken((0..10_000).map(task));
    assert!(polls.out.iter().any(|effect| matches!(effect, Effect::Pause(NORMAL, 0))));
    polls.wait(STORE_INTERVAL);
    polls.complete(&jobs[1..9_801]);
    polls.wait(Duration::ZERO);
    assert!(polls.carried().is_empty(), "98 %: much of it still runs");
    polls.complete(&jobs[9_801..9_802]);
    polls.wait(Duration::ZERO);
    assert_eq!(polls.carried(), [0], "and none of those that hold nothing up");
    polls.intake.carried(&jobs[0], true, polls.now, &|_| false, &mut polls.out);
    assert!(polls.out.iter().any(|effect| matches!(effect, Effect::Resume(NORMAL, 0))));
    assert_eq!(polls.stored(), [9_802]);
    polls.intake.stop();
    polls.complete(&jobs[9_900..]);
    polls.wait(Duration::from_secs(100));
    assert!(polls.carried().is_empty(), "a worker that stops gives them away");
}

#[test]
fn a_carry_that_ends_after_its_partition_was_given_completes_nothing() {
    let mut polls = Polls::new();
    let jobs = polls.taken((0..3).map(task));
    polls.complete(&jobs[1..2]);
    polls.wait(Duration::from_secs(60));
    assert_eq!(polls.carried(), [0]);
    polls.events(vec![Event::Revoked(vec![0])]);
    polls.events(vec![Event::Assigned(vec![Assigned { partition: 0, committed: None }])]);
    polls.records((0..3).map(task));
    polls.intake.carried(&jobs[0], true, polls.now, &|_| false, &mut polls.out);
    assert!(polls.stored().is_empty());
}
