//! The life of runs, without an executor and servers.

use super::*;
use crate::{
    core::lifecycle::Extended,
    store::StoreError,
    task::TaskError,
    worker::{effect::Effect, runs::run::StopReason},
};

struct Table {
    runs: Runs,
    out: Effects,
    now: Now,
}

impl Table {
    /// One slot for `async` tasks.
    fn new() -> Self {
        let mut plan = Plan::for_test();
        plan.options.concurrency = 1;
        let now = Now { at: Instant::now(), ms: 1_000_000 };
        Self { runs: Runs::new(&"w".into(), &Arc::new(plan), now.at), out: Effects::new(), now }
    }

    fn grant(&mut self, task: &str, token: u64, deliveries: u32) -> RunId {
        let job =
            Arc::new(Job::for_test(&format!(r#"{{"task-id":"{task}","task":"noop","args":[],"expires":2000000}}"#)));
        let grant = Grant { job, token, deliveries, sent: self.now.at };
        self.runs.granted(grant, Phase::Ready, self.now.at)
    }

    /// What starts now.
    fn started(&mut self) -> Vec<RunId> {
        self.runs.fill_slots(|_, _| [false; 3], self.now, &mut self.out);
        let start = |effect| match effect {
            Effect::Start(id) => Some(id),
            _ => None,
        };
        self.out.drain(..).filter_map(start).collect()
    }

    fn finish(&mut self, run: &RunId, lane: Lane, ended: Ended) {
        let finished = RunFinished { run: run.clone(), lane, ended };
        self.runs.finished(finished, self.now.at, &mut self.out);
    }

    /// How runs ended so far.
    fn ended(&mut self) -> Vec<String> {
        let ended = |effect| match effect {
            Effect::End(id, ended) => Some(format!("{} {ended:?}", id.task)),
            _ => None,
        };
        self.out.drain(..).filter_map(ended).collect()
    }

    fn extended(&mut self, answer: Extended) {
        let leases = self.runs.all_leases(self.now.at);
        let answers = Ok(leases.iter().map(|_| Ok(answer)).collect());
        self.runs.extended(&leases, self.now.at, answers, self.now.at, &mut self.out);
    }
}

fn ok() -> Ended {
    Ended::Returned(Ok("1".to_owned()))
}

#[test]
fn a_slot_goes_from_one_run_to_the_next() {
    let mut table = Table::new();
    let (a, b) = (table.grant("a", 1, 0), table.grant("b", 2, 0));
    assert_eq!((table.started(), table.started()), (vec![a.clone()], vec![]));
    table.finish(&a, Lane::Async, ok());
    assert_eq!(table.ended(), [r#"a Returned(Ok("1"))"#]);
    assert_eq!(table.started(), [b]);
}

#[test]
fn a_run_forgets_a_record_that_was_carried() {
    let mut table = Table::new();
    let id = table.grant("a", 1, 0);
    let copy = |offset| {
        let mut job = Job::for_test(r#"{"task-id":"a","task":"noop","args":[]}"#);
        job.at.offset = offset;
        Arc::new(job)
    };
    for offset in [7, 9] {
        assert!(table.runs.join(copy(offset), |_| true).is_ok());
    }
    table.runs.carried(&copy(7));
    let offsets = table.runs.table.get(&id).unwrap().jobs().map(|job| job.at.offset);
    assert_eq!(offsets.collect::<Vec<_>>(), [0, 9], "or a run of hours would keep all its copies");
}

#[test]
fn a_suspect_runs_in_quarantine_next_to_a_full_lane() {
    let mut table = Table::new();
    let (a, suspect, other) = (table.grant("a", 1, 0), table.grant("s", 2, 2), table.grant("o", 3, 5));
    assert_eq!(table.started(), [a, suspect.clone()]);
    table.finish(&suspect, Lane::Quarantine, ok());
    assert_eq!(table.started(), [other]);
}

#[test]
fn a_suspect_that_runs_for_a_minute_makes_way_for_the_next_one() {
    let mut table = Table::new();
    let (hung, next, last) = (table.grant("h", 1, 2), table.grant("n", 2, 2), table.grant("l", 3, 3));
    assert_eq!(table.started(), vec![hung.clone()]);
    table.now.at += QUARANTINE - Duration::from_millis(1);
    table.runs.due(table.now.at);
    assert_eq!(table.started(), []);
    table.now.at += Duration::from_millis(1);
    assert_eq!(table.runs.timers.next(), Some(table.now.at));
    table.runs.due(table.now.at);
    assert_eq!(table.started(), vec![next.clone()]);
    let other = table.grant("o", 4, 0);
    assert_eq!(table.started(), [], "the one that left takes a slot of its lane");
    table.finish(&hung, Lane::Quarantine, ok());
    assert_eq!(table.started(), [other], "and the one in quarantine is still alone");
    table.finish(&next, Lane::Quarantine, ok());
    assert_eq!(table.started(), [last]);
}

#[test]
fn many_suspects_that_crash_nobody_are_soon_through() {
    let mut table = Table::new();
    let start = table.now.at;
    for token in 0..20 {
        table.grant(&format!("s{token}"), token + 1, 2);
    }
    let mut started = table.started().len();
    while started < 20 {
        table.now.at = table.runs.timers.next().expect("one is in quarantine");
        table.runs.due(table.now.at);
        started += table.started().len();
    }
    let took = table.now.at - start;
    assert!(took < 3 * QUARANTINE, "{took:?} for tasks that run for hours");
}

#[test]
fn an_older_run_of_a_task_changes_nothing_once_a_newer_one_is_granted() {
    let mut table = Table::new();
    let old = table.grant("a", 1, 0);
    assert_eq!(table.started(), vec![old.clone()]);
    let new = table.grant("a", 2, 1);
    assert!(table.runs.table.get(&old).is_none());
    assert_eq!(table.runs.table.get(&new).unwrap().jobs().count(), 2, "its record ends with the newer run");
    table.finish(&old, Lane::Async, ok());
    assert_eq!(table.ended(), Vec::<String>::new(), "but its slot is free");
    assert_eq!(table.started(), [new]);
}

#[test]
fn a_revoked_run_ends_at_once_if_it_has_not_started_and_a_success_stays_one() {
    let mut table = Table::new();
    let (a, _) = (table.grant("a", 1, 0), table.grant("b", 2, 0));
    table.started();
    let tasks = ["a".parse().unwrap(), "b".parse().unwrap(), "c".parse().unwrap()];
    table.runs.revoke_tasks(&tasks, table.now.at, &mut table.out);
    assert_eq!(table.ended(), ["b Revoked"]);
    assert!(table.runs.table.get(&a).unwrap().cancel.is_cancelled(), "it was asked to end");
    table.finish(&a, Lane::Async, ok());
    assert_eq!(table.ended(), [r#"a Returned(Ok("1"))"#]);

    let c = table.grant("c", 3, 0);
    table.started();
    table.extended(Extended::Revoking);
    table.finish(&c, Lane::Async, Ended::Returned(Err(TaskError::new("late"))));
    assert_eq!(table.ended(), ["c Revoked"]);
}

#[test]
fn a_run_that_has_lost_its_lease_is_asked_to_end_or_never_starts() {
    let mut table = Table::new();
    let (a, b) = (table.grant("a", 1, 0), table.grant("b", 2, 0));
    table.started();
    table.extended(Extended::Lost);
    assert_eq!(table.runs.table.get(&a).unwrap().stop, Some(StopReason::LeaseLost));
    table.finish(&a, Lane::Async, ok());
    table.out.clear();
    table.runs.fill_slots(|_, _| [false; 3], table.now, &mut table.out);
    assert!(matches!(table.out.pop_front(), Some(Effect::Ask(job)) if job.envelope.id == b.task));
    assert!(table.runs.table.get(&b).is_none());
}

#[test]
fn what_has_expired_or_waited_for_too_long_since_its_admission_does_not_start() {
    let mut table = Table::new();
    let a = table.grant("a", 1, 0);
    table.runs.table.get_mut(&a).unwrap().limits.admitted = Some(table.now.at);
    table.now.at += ADMISSION_LIFETIME + Duration::from_millis(1);
    table.runs.fill_slots(|_, _| [false; 3], table.now, &mut table.out);
    assert!(matches!(table.out.pop_front(), Some(Effect::AskLimits(id)) if id == a));
    table.grant("b", 2, 0);
    table.now.ms = 2_000_000;
    assert_eq!(table.started(), []);
    table.grant("c", 3, 0);
    table.runs.fill_slots(|_, _| [false; 3], table.now, &mut table.out);
    assert_eq!(table.ended(), ["c Expired"]);
}

#[test]
fn leases_are_extended_from_the_second_on_and_what_waits_for_long_is_given_back() {
    let mut table = Table::new();
    let (a, _) = (table.grant("a", 1, 0), table.grant("b", 2, 0));
    table.started();
    assert!(table.runs.leases_due(table.now.at).is_empty(), "both are fresh");
    table.now.at += Duration::from_secs(2);
    assert_eq!(table.runs.leases_due(table.now.at).len(), 2);
    table.runs.give_back_waiting(false, table.now.at, &mut table.out);
    assert_eq!(table.ended(), Vec::<String>::new(), "the store could not take it back");
    let due = table.runs.next_due().expect("it looks again");
    table.runs.give_back_waiting(true, due, &mut table.out);
    assert_eq!(table.ended(), ["b GivenBack(0ns)"]);
    assert_eq!(table.runs.next_due(), None);
    table.extended(Extended::Live);
    assert_eq!(table.runs.table.get(&a).unwrap().confirmed, table.now.at);
}

#[test]
fn two_more_attempts_fit_into_the_lease_after_an_extension_that_is_not_answered() {
    let mut table = Table::new();
    let a = table.grant("a", 1, 0);
    table.started();
    table.runs.fill_slots(|_, _| [false; 3], table.now, &mut table.out);
    let (lease, granted) = (table.runs.plan.options.lease, table.now.at);
    let answer_timeout = lease / 6;
    let mut sent = granted + extend_interval(lease);
    for attempt in 0..3 {
        assert!(sent + answer_timeout < granted + lease, "attempt {attempt} is too late");
        let leases = table.runs.leases_due(sent);
        assert_eq!(leases.len(), 1);
        let now = sent + answer_timeout;
        let late = Err(StoreError::Unavailable("no answer".to_owned()));
        table.runs.extended(&leases, sent, late, now, &mut table.out);
        assert!(!table.runs.take_extension_due(now), "not at once");
        sent = table.runs.next_due().expect("it is sent again");
        assert!(table.runs.take_extension_due(sent) && !table.runs.take_extension_due(sent));
    }
    table.now.at = sent;
    table.extended(Extended::Live);
    assert_eq!(table.runs.table.get(&a).unwrap().confirmed, sent);
    assert_eq!(table.runs.next_due(), None);
}
