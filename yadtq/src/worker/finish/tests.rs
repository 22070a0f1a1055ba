//! What follows the store's answers, without a store.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{outcome::Outcome, publisher::Kind, *};
use crate::{
    core::{lifecycle::Finished, priority::Priority},
    store::StoreError,
    task::TaskError,
    wire::{
        envelope::{Envelope, MAX_SEQ, due},
        failure::{ErrorKind, Failure},
        strange,
    },
    worker::{
        effect::{Effect, Effects, Grant, Now},
        job::{Job, RunId},
        runs::{Runs, run::Phase},
    },
};

struct Ends {
    runs: Runs,
    finisher: Finisher,
    out: Effects,
    now: Now,
}

impl Ends {
    fn new() -> Self {
        let (worker, plan) = ("w".into(), Arc::new(Plan::for_test()));
        let now = Now { at: Instant::now(), ms: 1_000_000 };
        let finisher = Finisher::new(&worker, &plan, &Namespace::default());
        Self { runs: Runs::new(&worker, &plan, now.at), finisher, out: Effects::new(), now }
    }

    /// A run of this record has ended.
    fn end(&mut self, record: &str, ended: Ended) -> RunId {
        let grant = Grant { job: Arc::new(Job::for_test(record)), token: 7, deliveries: 1, sent: self.now.at };
        let id = self.runs.granted(grant, Phase::Ready, self.now.at);
        self.finisher.run_ended(self.runs.table.get_mut(&id).unwrap(), ended, self.now.ms);
        id
    }

    /// The store answers this to all that is to be recorded.
    fn answer(&mut self, answer: &Result<Finished, StoreError>) -> Vec<Effect> {
        let completer = &mut self.finisher.completer;
        let (ends, finishes) = completer.next_batch(&self.runs.table, self.now.at).expect("something to record");
        let answers = finishes.iter().map(|_| answer.clone()).collect();
        completer.answered(ends, answers, &mut self.runs.table, self.now, &mut self.out);
        self.out.drain(..).collect()
    }
}

const PLAIN: &str = r#"{"task-id":"t","task":"noop","args":[]}"#;
const ORDERED: &str = r#"{"task-id":"t","task":"noop","args":[],"ordering-key":"k"}"#;
const RECORDED: Result<Finished, StoreError> = Ok(Finished::Recorded);

fn error(error: TaskError) -> Ended {
    Ended::Returned(Err(error))
}

#[test]
fn a_success_completes_its_offset_only_once_it_is_recorded() {
    let mut ends = Ends::new();
    let id = ends.end(PLAIN, Ended::Returned(Ok("1".to_owned())));
    assert!(ends.runs.table.get(&id).is_some_and(|run| run.phase.is_ending()) && ends.out.is_empty());
    assert!(matches!(ends.answer(&RECORDED)[..], [Effect::Complete(_)]));
    assert!(ends.runs.table.is_empty() && ends.finisher.completer.is_empty());
    assert_eq!((ends.finisher.completer.processed, ends.finisher.completer.failed), (1, 0));
}

#[test]
fn a_failure_has_a_dead_letter_and_a_retry_a_next_record() {
    let mut ends = Ends::new();
    ends.end(PLAIN, error(TaskError::fatal("no")));
    assert!(
        matches!(&ends.answer(&RECORDED)[..], [Effect::DeadLetter(dead)] if dead.deliveries == 1 && dead.at.len() == 1)
    );
    ends.end(PLAIN, error(TaskError::retry_after("busy", Duration::from_secs(9))));
    let effects = ends.answer(&RECORDED);
    let [Effect::PublishNext(next)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((next.attempt, next.due, next.at.len()), (2, 1_009_000, 1));
    assert!(next.error.as_ref().unwrap().contains("busy"));
}

#[test]
fn with_an_ordering_key_a_retry_keeps_its_place() {
    let mut ends = Ends::new();
    ends.end(ORDERED, error(TaskError::retry_after("busy", Duration::from_secs(9))));
    let effects = ends.answer(&RECORDED);
    let [Effect::WaitInPlace(job, wait)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((job.ask.attempt, job.envelope.eta, *wait), (2, Some(1_009_000), Duration::from_secs(9)));
    assert_eq!(job.envelope.last_error.as_ref().unwrap().message, "busy");
}

#[test]
fn what_was_revoked_meanwhile_ends_as_revoked_and_what_is_stale_asks() {
    let mut ends = Ends::new();
    ends.end(PLAIN, error(TaskError::retry("busy")));
    assert!(ends.answer(&Ok(Finished::Revoking)).is_empty());
    assert!(matches!(ends.answer(&RECORDED)[..], [Effect::Complete(_)]));
    assert_eq!(ends.finisher.completer.processed, 1);

    ends.end(PLAIN, Ended::Returned(Ok("1".to_owned())));
    assert!(matches!(ends.answer(&Ok(Finished::Stale))[..], [Effect::Ask(_)]));
    assert!(ends.runs.table.is_empty());
}

#[test]
fn an_end_is_kept_until_the_store_answers_and_a_refused_one_is_tried_again() {
    let mut ends = Ends::new();
    let away = StoreError::Unavailable("away".to_owned());
    ends.end(PLAIN, Ended::Returned(Ok("1".to_owned())));
    for _ in 0..20 {
        let (batch, _) = ends.finisher.completer.next_batch(&ends.runs.table, ends.now.at).unwrap();
        ends.finisher.completer.unanswered(batch, &away, &mut ends.runs.table, &mut ends.out);
    }
    assert!(ends.answer(&Err(StoreError::Refused("no".to_owned()))).is_empty());
    assert!(ends.finisher.completer.next_batch(&ends.runs.table, ends.now.at).is_none(), "it waits");
    ends.now.at = ends.finisher.completer.next_due().expect("its time");
    ends.finisher.completer.due(ends.now.at);
    assert!(matches!(ends.answer(&RECORDED)[..], [Effect::Complete(_)]));
}

#[test]
fn a_task_that_cannot_be_given_back_is_left_to_its_lease() {
    let mut ends = Ends::new();
    let away = StoreError::Unavailable("away".to_owned());
    ends.end(PLAIN, Ended::GivenBack(Ended::GIVEN_BACK_DELAY));
    for _ in 0..5 {
        let (batch, _) = ends.finisher.completer.next_batch(&ends.runs.table, ends.now.at).unwrap();
        ends.finisher.completer.unanswered(batch, &away, &mut ends.runs.table, &mut ends.out);
    }
    assert!(matches!(ends.out.pop_front(), Some(Effect::AskAfter(..))));
    assert!(ends.runs.table.is_empty() && ends.finisher.completer.is_empty());
}

/// Asked for earlier, it would be held by its own claim.
#[test]
fn a_task_that_is_given_back_is_asked_for_once_that_is_recorded() {
    let mut ends = Ends::new();
    ends.end(PLAIN, Ended::GivenBack(Duration::from_secs(9)));
    assert!(ends.out.is_empty());
    assert!(matches!(ends.answer(&RECORDED)[..], [Effect::AskAfter(_, delay)] if delay == Duration::from_secs(9)));
    assert!(ends.runs.table.is_empty());
}

#[test]
fn a_batch_leaves_out_what_a_newer_run_has_taken_over() {
    let mut ends = Ends::new();
    let id = ends.end(PLAIN, Ended::Returned(Ok("1".to_owned())));
    ends.runs.table.remove(&id);
    assert!(ends.finisher.completer.next_batch(&ends.runs.table, ends.now.at).is_none());
    assert!(ends.finisher.completer.is_empty());
}

proptest! {
    /// Whatever can be read as a task can go on at once or later, be carried, and become a dead letter.
    #[test]
    fn nothing_that_is_read_blocks_its_partition(record in strange::records(), waits in any::<bool>()) {
        let Some(job) = Job::of_bytes(record.clone()) else { return Ok(()) };
        let (job, finisher) = (Arc::new(job), Ends::new().finisher);
        let copy = carrier::copy(&job);
        prop_assert_eq!((&copy.value, &*copy.topic), (&record, &*job.topic));

        let options = crate::worker::options::Options::default();
        let facts = outcome::Facts { job: &job, options: &options, now_ms: 0, random: 0 };
        let can_go_on = job.ask.seq < MAX_SEQ || job.envelope.ordering_key.is_some();
        prop_assert_eq!(matches!(outcome::decide(Ended::Waits(9), &facts), Outcome::Waits { .. }), can_go_on);
        if job.ask.seq < MAX_SEQ {
            let error = job.envelope.last_error.as_ref().map(|failure| failure.to_json().into());
            let (attempt, at) = (job.ask.attempt, vec![job.at]);
            let (again, limit_slot, unknown_since) = (Arc::clone(&job), None, None);
            let next =
                NextRecord { job: again, attempt, due: u64::from(waits), limit_slot, unknown_since, error, at };
            let next = finisher.next_record(next, 0);
            prop_assert!(matches!(next.kind, Kind::Next { .. }), "{:?}", next.kind);
            let read = Envelope::read(&next.record.value).unwrap();
            prop_assert_eq!((&read.id, read.seq, read.attempt), (&job.envelope.id, job.ask.seq + 1, attempt));
            if waits {
                let due = due(&next.record.value).unwrap();
                prop_assert_eq!((due.queue.as_str(), due.priority), ("default", Priority::Normal));
            }
        }

        let failure = Failure::new(ErrorKind::Error, "\u{7f}".repeat(1_000_000), 1);
        let dead = DeadLetter { at: vec![job.at], job: Arc::clone(&job), failure, deliveries: 0 };
        let letter = finisher.dead_letter(dead).record;
        prop_assert_eq!(&letter.value, &record);
        prop_assert!(letter.size() < record.len() + 5_000, "{} bytes more", letter.size() - record.len());
    }
}
