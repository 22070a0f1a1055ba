//! What is offered, without servers.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::{
    broker::{Assigned, Event, Incoming},
    core::{names::Namespace, priority::Priority},
    worker::{
        effect::{Effects, Grant},
        job::SourceId,
        runs::run::Phase,
    },
};

const NORMAL: SourceId = SourceId { queue: 0, priority: Priority::Normal };

/// A worker that knows `noop` alone, has no free slot, and these records.
struct Owner {
    intake: Intake,
    runs: Runs,
    offers: Offers,
    now: Instant,
}

impl Owner {
    fn new(tasks: &[&str]) -> Self {
        let (plan, now) = (Arc::new(Plan::for_test()), Instant::now());
        let mut intake = Intake::new(&"w".into(), &plan, &Namespace::default(), now);
        let assigned = Event::Assigned(vec![Assigned { partition: 0, committed: None }]);
        let record = |(offset, task): (i64, &&str)| {
            let value = Bytes::from(format!(r#"{{"task-id":"t{offset}","task":"{task}","args":[]}}"#));
            Incoming { partition: 0, offset, timestamp_ms: None, key: None, value, headers: Vec::new() }
        };
        let records = Event::Records((0..).zip(tasks).map(record).collect());
        intake.polled(NORMAL, vec![assigned, records], now, &mut Effects::new());
        Self { intake, runs: Runs::new(&"w".into(), &plan, now), offers: Offers::new(&"w".into(), &plan), now }
    }

    /// Takes ready records to claim them: those of unknown tasks wait.
    fn claim(&mut self, count: usize) {
        for _ in 0..count {
            let job = self.intake.take(Lane::Async).unwrap();
            assert!(self.offers.unknown.wait(job, self.now).is_none());
        }
    }

    fn wanted(&self, which: impl Fn(&Job) -> bool) -> Vec<(String, usize)> {
        let wanted = self.offers.wanted(&self.intake, &[Lane::Async], which);
        wanted.into_iter().map(|wanted| (wanted.task.to_string(), wanted.count)).collect()
    }

    fn take(&mut self, task: &str, most: usize, which: impl Fn(&Job) -> bool) -> Vec<i64> {
        self.take_bytes(task, most, &mut usize::MAX.clone(), which)
    }

    fn take_bytes(&mut self, task: &str, most: usize, left: &mut usize, which: impl Fn(&Job) -> bool) -> Vec<i64> {
        let wanted = WantedSlots { queue: "default".into(), task: task.into(), count: most };
        let taken = self.offers.take(&mut self.intake, &mut self.runs, &wanted, most, left, which);
        taken.into_iter().map(|job| job.at.offset).collect()
    }
}

#[test]
fn whatever_is_counted_can_be_taken() {
    let mut owner = Owner::new(&["other"; 4]);
    owner.claim(1);
    assert_eq!(owner.wanted(|_| true).iter().map(|(_, count)| count).sum::<usize>(), 4);
    assert_eq!(owner.take("other", 3, |_| true), [0, 1, 2], "those that wait, and then those that are ready");
    assert_eq!(owner.take("other", 3, |_| true), [3]);
    assert!(owner.wanted(|_| true).is_empty());
}

#[test]
fn what_an_operator_withholds_is_neither_counted_nor_taken() {
    let mut owner = Owner::new(&["other", "noop", "noop"]);
    owner.claim(1);
    let withheld = |_: &Job| false;
    assert!(owner.wanted(withheld).is_empty());
    assert!(owner.take("other", 9, withheld).is_empty() && owner.take("noop", 9, withheld).is_empty());
    assert_eq!(owner.take("noop", 9, |job| job.at.offset == 2), [2]);
}

#[test]
fn what_was_declined_is_not_offered_again_for_a_second() {
    let mut owner = Owner::new(&["other", "noop"]);
    let ready = owner.intake.take(Lane::Async).unwrap();
    owner.offers.declined.add(ready.at.into(), owner.now);
    owner.intake.put_back(ready);
    assert_eq!(owner.wanted(|_| true), [("noop".to_owned(), 1)]);
    assert!(owner.take("other", 9, |_| true).is_empty());
    owner.claim(1);
    assert!(owner.take("other", 9, |_| true).is_empty(), "not even while it waits for a worker that knows it");
    owner.offers.declined.expire(owner.now + Duration::from_secs(1));
    assert_eq!(owner.take("other", 9, |_| true), [0]);
}

#[test]
fn one_worker_gets_so_many_bytes_at_once() {
    let mut owner = Owner::new(&["noop"; 4]);
    let bytes = owner.intake.offerable(Lane::Async).next().unwrap().at.bytes;
    let mut left = 3 * bytes - 1;
    assert_eq!(owner.take_bytes("noop", 9, &mut left, |_| true), [0, 1]);
    assert!(owner.take_bytes("noop", 9, &mut left, |_| true).is_empty(), "it has got that much");
    assert_eq!(owner.take("noop", 9, |_| true), [2, 3], "the rest was put back, in order");
}

#[test]
fn a_record_whose_task_runs_here_ends_with_the_run_and_is_not_offered() {
    let mut owner = Owner::new(&["noop", "noop"]);
    let job = Job::for_test(r#"{"task-id":"t1","task":"noop","args":[]}"#);
    let grant = Grant { job: Arc::new(job), token: 1, deliveries: 0, sent: owner.now };
    let id = owner.runs.granted(grant, Phase::Ready, owner.now);
    assert_eq!(owner.take("noop", 9, |_| true), [0]);
    let joined: Vec<_> = owner.runs.table.get(&id).unwrap().jobs().map(|job| job.at.offset).collect();
    assert_eq!(joined, [0, 1], "the record of the run is another one");
}
