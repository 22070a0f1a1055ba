//! Random histories, played on the Redis scripts and on the pure transitions: answers and records must agree.
//!
//! The two have clocks of their own, so after each step the pure side takes over times and tokens from Redis,
//! once they were found to have moved alike. Leases are either long or over, so that no race decides a row.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use tokio::runtime::Runtime;

use super::{
    Completion, Handover, Lease, Report, Revival, Store, Submission,
    conformance::Subject,
    redis::{RedisStore, testing::redis_for_test},
    ttl,
};
use crate::core::{
    lifecycle::{
        self, Ask, Claim, Claimer, Extended, HandOn, HandedOn, Held, Next, Outcome, Progress, Replay, Revocation,
        Status, TaskState, Verdict,
    },
    names::{TaskId, WorkerId},
};

const TASKS: usize = 3;
const LEASE_MS: u64 = 600_000;
/// A token that no clock has reached.
const AHEAD: u64 = 4_000_000_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    Submit { task: usize, eta: Option<u64> },
    Claim { by: Claimer, asks: Vec<(usize, Arc<Ask>)> },
    Complete { run: Run, outcome: Outcome },
    HandOn { run: Run, next: Arc<Next> },
    Extend { run: Run, worker: WorkerId },
    Progress { run: Run, progress: Progress },
    Release { run: Run },
    Revoke { task: usize },
    Replay { task: usize, seq: u64 },
    EndLease { task: usize },
    AskRevoke { task: usize },
    Lose { task: usize },
    Plant { task: usize, state: TaskState },
}

/// A run that somebody believes in: its token is the task's own, or an older or invented one.
#[derive(Clone, Debug)]
struct Run {
    task: usize,
    ask: Arc<Ask>,
    token: u64,
    is_current: bool,
    recent: bool,
}

fn ask() -> impl Strategy<Value = Arc<Ask>> {
    (1..4_u64, 1..4_u32, select(vec![1, 2, u64::MAX]))
        .prop_map(|(seq, attempt, nonce)| Arc::new(Ask { seq, attempt, nonce, task: "add".into(), queue: "q".into() }))
}

fn worker() -> impl Strategy<Value = WorkerId> {
    select(vec!["w1", "w2", "w3"]).prop_map(WorkerId::from)
}

fn claimer() -> impl Strategy<Value = Claimer> {
    (worker(), proptest::bool::weighted(0.8), 0..3_u32, 1..5_u32).prop_map(
        |(worker, take_over, quarantine, max_deliveries)| Claimer {
            worker,
            lease_ms: LEASE_MS,
            take_over,
            quarantine,
            max_deliveries,
        },
    )
}

fn run() -> impl Strategy<Value = Run> {
    (0..TASKS, ask(), select(vec![0, 1, 7, AHEAD]), proptest::bool::weighted(0.75), any::<bool>())
        .prop_map(|(task, ask, token, is_current, recent)| Run { task, ask, token, is_current, recent })
}

fn hand_on() -> impl Strategy<Value = Option<HandOn>> {
    option::of(prop_oneof![
        Just(HandOn::Dead),
        Just(HandOn::Stay),
        (1..4_u32, due()).prop_map(|(attempt, due)| HandOn::Next { attempt, due })
    ])
}

fn due() -> impl Strategy<Value = u64> {
    select(vec![0, 1_000, AHEAD / 1_000])
}

fn next() -> impl Strategy<Value = Arc<Next>> {
    let status = select(vec![Status::Retrying, Status::Scheduled]);
    (status, 1..4_u32, due(), json(), any::<bool>())
        .prop_map(|(status, attempt, due, error, in_place)| Arc::new(Next { status, attempt, due, error, in_place }))
}

fn progress() -> impl Strategy<Value = Progress> {
    (0..12_u64, select(vec!["3", "{}"])).prop_map(|(number, value)| Progress { number, value: value.into() })
}

fn json() -> impl Strategy<Value = Option<Arc<str>>> {
    option::of(select(vec!["3", "\"a b\"", "{}"]).prop_map(Arc::from))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    (select(vec![Status::Success, Status::Failure, Status::Revoked]), json(), json(), hand_on())
        .prop_map(|(status, result, error, hand_on)| Outcome { status, result, error, hand_on })
}

/// Records that the transitions can leave behind, also those of later versions (handed on, scheduled).
fn state() -> impl Strategy<Value = TaskState> {
    let status = select(vec![
        Status::Queued,
        Status::Scheduled,
        Status::Running,
        Status::Running,
        Status::Retrying,
        Status::Success,
        Status::Failure,
        Status::Revoked,
    ]);
    let numbers = (1..4_u64, 1..4_u32, select(vec![0, 7, AHEAD]), 0..6_u32);
    let lease = (worker(), select(vec![1, 2, u64::MAX]), any::<bool>(), any::<bool>());
    let texts = (json(), json(), option::of(due()), option::of(progress()));
    (status, numbers, lease, hand_on(), texts).prop_map(
        |(status, numbers, lease, hand_on, (result, error, eta, progress))| {
            let (seq, attempt, token, deliveries) = numbers;
            let (worker, nonce, is_live, revoke) = lease;
            let plain =
                TaskState { seq, attempt, token, deliveries, ..TaskState::queued("add".into(), "q".into(), 5_000) };
            match status {
                // What was replayed has the hand-on that led here.
                Status::Queued if seq > 1 => {
                    TaskState { hand_on: hand_on.filter(|hand_on| matches!(hand_on, HandOn::Next { .. })), ..plain }
                }
                // Neither of them has a result, an error or a hand-on: a grant takes them away.
                Status::Queued => plain,
                Status::Running => {
                    let lease_until = if is_live { AHEAD } else { 1 };
                    TaskState { status, worker: Some(worker), nonce, lease_until, revoke, progress, ..plain }
                }
                // What was handed on keeps it until its next run.
                Status::Scheduled | Status::Retrying => {
                    TaskState { status, hand_on, result, error, eta, progress, ..plain }
                }
                _ => TaskState { status, hand_on, result, error, eta, ..plain },
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let task = 0..TASKS;
    prop_oneof![
        1 => (task.clone(), option::of(due())).prop_map(|(task, eta)| Step::Submit { task, eta }),
        6 => (claimer(), vec((0..TASKS, ask()), 1..5)).prop_map(|(by, asks)| Step::Claim { by, asks }),
        3 => (run(), outcome()).prop_map(|(run, outcome)| Step::Complete { run, outcome }),
        3 => (run(), next()).prop_map(|(run, next)| Step::HandOn { run, next }),
        2 => (run(), worker()).prop_map(|(run, worker)| Step::Extend { run, worker }),
        2 => (run(), progress()).prop_map(|(run, progress)| Step::Progress { run, progress }),
        2 => run().prop_map(|run| Step::Release { run }),
        1 => task.clone().prop_map(|task| Step::Revoke { task }),
        2 => (task.clone(), 1..4_u64).prop_map(|(task, seq)| Step::Replay { task, seq }),
        3 => task.clone().prop_map(|task| Step::EndLease { task }),
        1 => task.clone().prop_map(|task| Step::AskRevoke { task }),
        1 => task.clone().prop_map(|task| Step::Lose { task }),
        3 => (task, state()).prop_map(|(task, state)| Step::Plant { task, state }),
    ]
}

/// What a call told, whichever it was.
#[derive(Debug)]
enum Told {
    Nothing,
    Claims(Vec<Claim>),
    Verdict(Verdict),
    HandedOn(HandedOn),
    Extended(Extended),
    Noted(bool),
    Revocation(Revocation),
    Replay(Replay),
}

struct World {
    redis: Arc<RedisStore>,
    ids: [TaskId; TASKS],
    /// What the pure transitions made of the tasks.
    pure: [Option<TaskState>; TASKS],
}

impl World {
    async fn play(&mut self, step: &Step) {
        let before = self.pure.clone();
        let now_us = self.redis.now_us().await.unwrap();
        let told = self.play_redis(step, &before).await;
        let expected = self.play_pure(step, &before, now_us);
        let now = self.redis.read(&self.ids, None).await.unwrap();
        for (task, redis) in now.into_iter().map(Result::unwrap).enumerate() {
            self.agree(step, before[task].as_ref(), task, redis.as_ref());
        }
        self.agree_on_answer(step, &told, &expected);
    }

    async fn play_redis(&self, step: &Step, before: &[Option<TaskState>; TASKS]) -> Told {
        let lease = |run: &Run| [lease(&self.ids[run.task], run, before)];
        match step {
            Step::Submit { task, eta } => {
                let (id, eta) = (self.ids[*task].clone(), *eta);
                let submission = Submission { id, task: "add".into(), queue: "q".into(), reply_to: None, eta };
                self.redis.submit(&[submission]).await.unwrap();
                Told::Nothing
            }
            Step::Claim { by, asks } => {
                let asks = asks.iter().map(|(task, ask)| (self.ids[*task].clone(), Arc::clone(ask)));
                let claims = self.redis.claim(by, &asks.collect::<Vec<_>>()).await.unwrap();
                Told::Claims(claims.into_iter().map(Result::unwrap).collect())
            }
            Step::Complete { run, outcome } => {
                let [lease] = lease(run);
                let outcome = Arc::new(outcome.clone());
                let run = Completion { lease, outcome, reply_to: None, ttl_ms: ttl::RESULT };
                Told::Verdict(self.redis.complete(&[run]).await.unwrap().remove(0).unwrap())
            }
            Step::HandOn { run, next } => {
                let [lease] = lease(run);
                let told = self.redis.hand_on(&[Handover { lease, next: Arc::clone(next) }]).await;
                Told::HandedOn(told.unwrap().remove(0).unwrap())
            }
            Step::Extend { run, worker } => {
                let extended = self.redis.extend(worker, LEASE_MS, &lease(run)).await;
                Told::Extended(extended.unwrap().remove(0).unwrap())
            }
            Step::Progress { run, progress } => {
                let [Lease { id, held, .. }] = lease(run);
                let report = Report { id, token: held.token, progress: progress.clone() };
                Told::Noted(self.redis.progress(&[report]).await.unwrap().remove(0).unwrap())
            }
            Step::Release { run } => Told::Verdict(self.redis.release(&lease(run)).await.unwrap().remove(0).unwrap()),
            Step::Revoke { task } => {
                let told = self.redis.revoke(&self.ids[*task..=*task]).await;
                Told::Revocation(told.unwrap().remove(0).unwrap())
            }
            Step::Replay { task, seq } => {
                let (id, task, queue) = (self.ids[*task].clone(), "add".into(), "q".into());
                let told = self.redis.replay(&[Revival { id, seq: *seq, task, queue }]).await;
                Told::Replay(told.unwrap().remove(0).unwrap())
            }
            Step::EndLease { task } | Step::AskRevoke { task } | Step::Lose { task } | Step::Plant { task, .. } => {
                let mut planted = before.clone();
                meddle(step, &mut planted);
                self.redis.plant(&self.ids[*task], planted[*task].clone()).await;
                Told::Nothing
            }
        }
    }

    fn play_pure(&mut self, step: &Step, before: &[Option<TaskState>; TASKS], now_us: u64) -> Told {
        let held = |run: &Run| lease(&self.ids[run.task], run, before).held;
        match step {
            Step::Submit { task, eta } => {
                let new = || TaskState::submitted("add".into(), "q".into(), *eta, now_us);
                self.pure[*task].get_or_insert_with(new);
                Told::Nothing
            }
            Step::Claim { by, asks } => {
                let mut by = by.clone();
                let claim =
                    |(task, ask): &(usize, Arc<Ask>)| lifecycle::claim(&mut self.pure[*task], ask, &mut by, now_us);
                Told::Claims(asks.iter().map(claim).collect())
            }
            Step::Complete { run, outcome } => {
                let held = held(run);
                Told::Verdict(lifecycle::complete(&mut self.pure[run.task], &run.ask, held, outcome, now_us))
            }
            Step::HandOn { run, next } => {
                let held = held(run);
                Told::HandedOn(lifecycle::hand_on(&mut self.pure[run.task], &run.ask, held, next, now_us))
            }
            Step::Extend { run, worker } => {
                let held = held(run);
                let slot = &mut self.pure[run.task];
                Told::Extended(lifecycle::extend(slot, &run.ask, held, worker, LEASE_MS, now_us))
            }
            Step::Progress { run, progress } => {
                let token = held(run).token;
                Told::Noted(lifecycle::progress(&mut self.pure[run.task], token, progress))
            }
            Step::Release { run } => {
                let token = held(run).token;
                Told::Verdict(lifecycle::release(&mut self.pure[run.task], token, now_us))
            }
            Step::Revoke { task } => Told::Revocation(lifecycle::revoke(&mut self.pure[*task], now_us)),
            Step::Replay { task, seq } => {
                let slot = &mut self.pure[*task];
                Told::Replay(lifecycle::replay(slot, *seq, &"add".into(), &"q".into(), now_us))
            }
            meddling => {
                meddle(meddling, &mut self.pure);
                Told::Nothing
            }
        }
    }

    /// Compares a task on both sides, then lets the pure side take over what depends on the clock.
    fn agree(&mut self, step: &Step, before: Option<&TaskState>, task: usize, redis: Option<&TaskState>) {
        let token_before = before.map_or(0, |state| state.token);
        if let (Some(pure), Some(redis)) = (&mut self.pure[task], redis) {
            let moved = |token: u64| token.cmp(&token_before);
            assert_eq!(moved(redis.token), moved(pure.token), "{step:?} moves the token of {before:?}");
            if token_before == AHEAD {
                assert_eq!(redis.token, pure.token, "{step:?}: a token beyond the clock grows by one");
            }
            pure.token = redis.token;
            let times = [
                (&mut pure.queued_at, redis.queued_at),
                (&mut pure.started_at, redis.started_at),
                (&mut pure.finished_at, redis.finished_at),
            ];
            for (pure, redis) in times {
                if let (Some(pure), Some(redis)) = (pure, redis) {
                    assert!(pure.abs_diff(redis) < 5_000, "{step:?}: {pure} and {redis} are the same time");
                    *pure = redis;
                }
            }
            assert!(pure.lease_until.abs_diff(redis.lease_until) < 5_000, "{step:?}: {pure:?} {redis:?}");
            pure.lease_until = redis.lease_until;
        }
        assert_eq!(redis, self.pure[task].as_ref(), "{step:?} on {before:?}: redis, pure");
    }

    fn agree_on_answer(&self, step: &Step, told: &Told, expected: &Told) {
        let same = match (told, expected) {
            (Told::Nothing, Told::Nothing) => true,
            (Told::Verdict(told), Told::Verdict(expected)) => told == expected,
            (Told::HandedOn(told), Told::HandedOn(expected)) => told == expected,
            (Told::Extended(told), Told::Extended(expected)) => told == expected,
            (Told::Noted(told), Told::Noted(expected)) => told == expected,
            (Told::Revocation(told), Told::Revocation(expected)) => told == expected,
            (Told::Replay(told), Told::Replay(expected)) => told == expected,
            (Told::Claims(told), Told::Claims(expected)) => told.iter().zip(expected).all(|pair| match pair {
                (
                    Claim::Granted { deliveries: a, attempt: x, .. },
                    Claim::Granted { deliveries: b, attempt: y, .. },
                ) => a == b && x == y,
                (Claim::Held { ms_left: a, mine }, Claim::Held { ms_left: b, mine: other }) => {
                    a.abs_diff(*b) < 5_000 && mine == other
                }
                (told, expected) => told == expected,
            }),
            _ => false,
        };
        assert!(same, "{step:?}: redis told {told:?}, pure {expected:?}");
        let (Step::Claim { asks, .. }, Told::Claims(claims)) = (step, told) else { return };
        for ((task, _), claim) in asks.iter().zip(claims) {
            if let (Claim::Granted { token, .. }, Some(state)) = (claim, &self.pure[*task]) {
                assert_eq!(*token, state.token, "{step:?}: the token that was granted is the task's");
            }
        }
    }
}

fn lease(id: &TaskId, run: &Run, before: &[Option<TaskState>; TASKS]) -> Lease {
    let current = before[run.task].as_ref().map(|state| state.token);
    let token = current.filter(|_| run.is_current).unwrap_or(run.token);
    Lease { id: id.clone(), ask: Arc::clone(&run.ask), held: Held { token, recent: run.recent } }
}

/// What happens to records without a transition.
fn meddle(step: &Step, states: &mut [Option<TaskState>; TASKS]) {
    match step {
        Step::Plant { task, state } => states[*task] = Some(state.clone()),
        Step::Lose { task } => states[*task] = None,
        Step::EndLease { task } | Step::AskRevoke { task } => {
            if let Some(state) = states[*task].as_mut().filter(|state| state.status == Status::Running) {
                match step {
                    Step::EndLease { .. } => state.lease_until = 1,
                    _ => state.revoke = true,
                }
            }
        }
        _ => {}
    }
}

#[test]
fn scripts_and_pure_transitions_agree() {
    let runtime = Runtime::new().unwrap();
    let redis = runtime.block_on(redis_for_test());
    let config = ProptestConfig { cases: 300, ..ProptestConfig::default() };
    proptest!(config, |(steps in vec((step(), proptest::bool::weighted(0.3)), 1..40))| {
        runtime.block_on(async {
            let ids = std::array::from_fn(|_| TaskId::new());
            let mut world = World { redis: Arc::clone(&redis), ids, pure: Default::default() };
            for (step, twice) in &steps {
                world.play(step).await;
                if *twice {
                    world.play(step).await;
                }
            }
        });
    });
}
