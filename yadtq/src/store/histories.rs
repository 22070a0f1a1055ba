//! Random histories, played on the Redis scripts and on the pure transitions: answers and records must agree.
//!
//! The two have clocks of their own. So after each step the pure side takes over times and tokens from Redis, once they
//! were found to have moved alike. Leases are either long or over, so that no race decides a row.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use tokio::runtime::Runtime;

use super::{
    DeadTask, Finish, Lease, Report, Store, Submission, Tasks,
    conformance::Subject,
    redis::{RedisStore, testing::redis_for_test},
    ttl,
};
use crate::core::{
    lifecycle::{
        self, Claim, ClaimRequest, Claimer, End, Extended, Finished, FollowUp, LeaseProof, Progress, Replay,
        Revocation, Status, TaskState,
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
    Claim { by: Claimer, asks: Vec<(usize, Arc<ClaimRequest>)> },
    Finish { runs: Vec<(Run, Arc<End>)> },
    Extend { run: Run, worker: WorkerId },
    Carry { task: usize, seq: u64 },
    DeadLettered { task: usize, seq: u64 },
    Progress { run: Run, progress: Progress },
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
    ask: Arc<ClaimRequest>,
    token: u64,
    is_current: bool,
    recent: bool,
}

fn ask() -> impl Strategy<Value = Arc<ClaimRequest>> {
    (1..4_u64, 1..4_u32, select(vec![1, 2, u64::MAX])).prop_map(|(seq, attempt, nonce)| {
        Arc::new(ClaimRequest { seq, attempt, nonce, task: "add".into(), queue: "q".into() })
    })
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

fn follow_up() -> impl Strategy<Value = Option<FollowUp>> {
    option::of(prop_oneof![
        Just(FollowUp::Dead),
        Just(FollowUp::Stay),
        (1..4_u32, due()).prop_map(|(attempt, due)| FollowUp::Next { attempt, due })
    ])
}

fn due() -> impl Strategy<Value = u64> {
    select(vec![0, 1_000, AHEAD / 1_000])
}

/// Every kind of end, those that end the task as often as the others.
fn end() -> impl Strategy<Value = Arc<End>> {
    let error = || json().prop_map(|error| error.unwrap_or_else(|| "null".into()));
    prop_oneof![
        json().prop_map(End::succeeded),
        error().prop_map(End::failed),
        error().prop_map(End::revoked),
        (1..4_u32, due(), error()).prop_map(|(attempt, due, error)| End::retry(attempt, due, error)),
        (1..4_u32, due(), error()).prop_map(|(attempt, due, error)| End::retry(attempt, due, error).in_place()),
        (1..4_u32, due(), json()).prop_map(|(attempt, due, error)| End::snooze(attempt, due, error)),
        (1..4_u32, due(), json()).prop_map(|(attempt, due, error)| End::snooze(attempt, due, error).in_place()),
        Just(End::given_back()),
        Just(End::given_back()),
    ]
    .prop_map(Arc::new)
}

fn progress() -> impl Strategy<Value = Progress> {
    (0..12_u64, select(vec!["3", "{}"])).prop_map(|(number, value)| Progress { number, value: value.into() })
}

fn json() -> impl Strategy<Value = Option<Arc<str>>> {
    option::of(select(vec!["3", "\"a b\"", "{}"]).prop_map(Arc::from))
}

/// Records that the transitions can leave behind, and some that only later versions may.
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
    let lease = (lease, any::<bool>());
    let texts = (json(), json(), option::of(due()), option::of(progress()));
    (status, numbers, lease, follow_up(), texts).prop_map(
        |(status, numbers, lease, follow_up, (result, error, eta, progress))| {
            let (seq, attempt, token, deliveries) = numbers;
            let ((worker, nonce, is_live, revoke), carried) = lease;
            let plain = TaskState {
                seq,
                attempt,
                token,
                deliveries,
                carried,
                ..TaskState::queued("add".into(), "q".into(), 5_000)
            };
            match status {
                // A task that was replayed has the field that says how it came here.
                Status::Queued if seq > 1 => TaskState {
                    follow_up: follow_up.filter(|follow_up| matches!(follow_up, FollowUp::Next { .. })),
                    ..plain
                },
                // Neither of them has a result, an error or a `follow_up`: a grant takes them away.
                Status::Queued => plain,
                Status::Running => {
                    let lease_until = if is_live { AHEAD } else { 1 };
                    TaskState { status, worker: Some(worker), nonce, lease_until, revoke, progress, ..plain }
                }
                // A task that has another run keeps it until then.
                Status::Scheduled | Status::Retrying => {
                    TaskState { status, follow_up, result, error, eta, progress, ..plain }
                }
                // Its dead letter is perhaps being published.
                Status::Failure => {
                    let lease_until = if is_live { AHEAD } else { 1 };
                    TaskState {
                        status,
                        follow_up,
                        worker: Some(worker).filter(|_| nonce != 2),
                        nonce,
                        lease_until,
                        result,
                        error,
                        eta,
                        ..plain
                    }
                }
                _ => TaskState { status, follow_up, result, error, eta, ..plain },
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let task = 0..TASKS;
    prop_oneof![
        1 => (task.clone(), option::of(due())).prop_map(|(task, eta)| Step::Submit { task, eta }),
        6 => (claimer(), vec((0..TASKS, ask()), 1..5)).prop_map(|(by, asks)| Step::Claim { by, asks }),
        8 => vec((run(), end()), 1..4).prop_map(|runs| Step::Finish { runs }),
        2 => (run(), worker()).prop_map(|(run, worker)| Step::Extend { run, worker }),
        2 => (task.clone(), 1..4_u64).prop_map(|(task, seq)| Step::Carry { task, seq }),
        2 => (task.clone(), 1..4_u64).prop_map(|(task, seq)| Step::DeadLettered { task, seq }),
        2 => (run(), progress()).prop_map(|(run, progress)| Step::Progress { run, progress }),
        1 => task.clone().prop_map(|task| Step::Revoke { task }),
        2 => (task.clone(), 1..4_u64).prop_map(|(task, seq)| Step::Replay { task, seq }),
        3 => task.clone().prop_map(|task| Step::EndLease { task }),
        1 => task.clone().prop_map(|task| Step::AskRevoke { task }),
        1 => task.clone().prop_map(|task| Step::Lose { task }),
        3 => (task, state()).prop_map(|(task, state)| Step::Plant { task, state }),
    ]
}

/// What a call was answered, whichever it was.
#[derive(Debug)]
enum Answer {
    Nothing,
    Claims(Vec<Claim>),
    Finished(Vec<Finished>),
    Extended(Extended),
    Carried(bool),
    DeadLettered(bool),
    Reported(bool),
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
        let answer = self.play_redis(step, &before).await;
        let expected = self.play_pure(step, &before, now_us);
        let now = self.redis.read(&self.ids, None).await.unwrap();
        for (task, redis) in now.into_iter().map(Result::unwrap).enumerate() {
            self.agree(step, before[task].as_ref(), task, redis.as_ref());
        }
        self.agree_on_answer(step, &answer, &expected);
    }

    async fn play_redis(&self, step: &Step, before: &[Option<TaskState>; TASKS]) -> Answer {
        let lease = |run: &Run| [lease(&self.ids[run.task], run, before)];
        match step {
            Step::Submit { task, eta } => {
                let (id, eta) = (self.ids[*task].clone(), *eta);
                let submission = Submission { id, task: "add".into(), queue: "q".into(), reply_to: None, eta };
                self.redis.submit(&[submission]).await.unwrap();
                Answer::Nothing
            }
            Step::Claim { by, asks } => {
                let asks = asks.iter().map(|(task, ask)| (self.ids[*task].clone(), Arc::clone(ask)));
                let claims = self.redis.claim(by, &asks.collect::<Vec<_>>()).await.unwrap();
                Answer::Claims(claims.into_iter().map(Result::unwrap).collect())
            }
            Step::Finish { runs } => {
                let runs = runs.iter().map(|(run, end)| {
                    let [lease] = lease(run);
                    Finish { lease, end: Arc::clone(end), reply_to: None, ttl_ms: ttl::RESULT }
                });
                let finished = self.redis.finish(&runs.collect::<Vec<_>>()).await.unwrap();
                Answer::Finished(finished.into_iter().map(Result::unwrap).collect())
            }
            Step::Extend { run, worker } => {
                let extended = self.redis.extend(worker, LEASE_MS, &lease(run)).await;
                Answer::Extended(extended.unwrap().remove(0).unwrap())
            }
            Step::Carry { task, seq } => {
                let answer = self.redis.carry(&[(self.ids[*task].clone(), *seq)]).await;
                Answer::Carried(answer.unwrap().remove(0).unwrap())
            }
            Step::DeadLettered { task, seq } => {
                let answer = self.redis.dead_lettered(&[(self.ids[*task].clone(), *seq)]).await;
                Answer::DeadLettered(answer.unwrap().remove(0).unwrap())
            }
            Step::Progress { run, progress } => {
                let [Lease { id, held, .. }] = lease(run);
                let report = Report { id, token: held.token, progress: progress.clone() };
                Answer::Reported(self.redis.progress(&[report]).await.unwrap().remove(0).unwrap())
            }
            Step::Revoke { task } => {
                let answer = self.redis.revoke(&self.ids[*task..=*task]).await;
                Answer::Revocation(answer.unwrap().remove(0).unwrap())
            }
            Step::Replay { task, seq } => {
                let (id, task, queue) = (self.ids[*task].clone(), "add".into(), "q".into());
                let answer = self.redis.replay(&[DeadTask { id, seq: *seq, task, queue }]).await;
                Answer::Replay(answer.unwrap().remove(0).unwrap())
            }
            Step::EndLease { task } | Step::AskRevoke { task } | Step::Lose { task } | Step::Plant { task, .. } => {
                let mut planted = before.clone();
                meddle(step, &mut planted);
                self.redis.plant(&self.ids[*task], planted[*task].clone()).await;
                Answer::Nothing
            }
        }
    }

    fn play_pure(&mut self, step: &Step, before: &[Option<TaskState>; TASKS], now_us: u64) -> Answer {
        let held = |run: &Run| lease(&self.ids[run.task], run, before).held;
        match step {
            Step::Submit { task, eta } => {
                let new = || TaskState::submitted("add".into(), "q".into(), *eta, now_us);
                self.pure[*task].get_or_insert_with(new);
                Answer::Nothing
            }
            Step::Claim { by, asks } => {
                let mut by = by.clone();
                let claim = |(task, ask): &(usize, Arc<ClaimRequest>)| {
                    lifecycle::claim(&mut self.pure[*task], ask, &mut by, |_| false, now_us)
                };
                Answer::Claims(asks.iter().map(claim).collect())
            }
            Step::Finish { runs } => {
                let finish = |(run, end): &(Run, Arc<End>)| {
                    let held = held(run);
                    lifecycle::finish(&mut self.pure[run.task], &run.ask, held, end, now_us)
                };
                Answer::Finished(runs.iter().map(finish).collect())
            }
            Step::Extend { run, worker } => {
                let held = held(run);
                let slot = &mut self.pure[run.task];
                Answer::Extended(lifecycle::extend(slot, &run.ask, held, worker, LEASE_MS, now_us))
            }
            Step::Carry { task, seq } => Answer::Carried(lifecycle::carry(&mut self.pure[*task], *seq)),
            Step::DeadLettered { task, seq } => {
                Answer::DeadLettered(lifecycle::dead_lettered(&mut self.pure[*task], *seq))
            }
            Step::Progress { run, progress } => {
                let token = held(run).token;
                Answer::Reported(lifecycle::progress(&mut self.pure[run.task], token, progress))
            }
            Step::Revoke { task } => Answer::Revocation(lifecycle::revoke(&mut self.pure[*task], now_us)),
            Step::Replay { task, seq } => {
                let slot = &mut self.pure[*task];
                Answer::Replay(lifecycle::replay(slot, *seq, &"add".into(), &"q".into(), now_us))
            }
            meddling => {
                meddle(meddling, &mut self.pure);
                Answer::Nothing
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

    fn agree_on_answer(&self, step: &Step, answer: &Answer, expected: &Answer) {
        let same = match (answer, expected) {
            (Answer::Nothing, Answer::Nothing) => true,
            (Answer::Finished(answer), Answer::Finished(expected)) => answer == expected,
            (Answer::Extended(answer), Answer::Extended(expected)) => answer == expected,
            (Answer::Carried(answer), Answer::Carried(expected)) => answer == expected,
            (Answer::DeadLettered(answer), Answer::DeadLettered(expected)) => answer == expected,
            (Answer::Reported(answer), Answer::Reported(expected)) => answer == expected,
            (Answer::Revocation(answer), Answer::Revocation(expected)) => answer == expected,
            (Answer::Replay(answer), Answer::Replay(expected)) => answer == expected,
            (Answer::Claims(answer), Answer::Claims(expected)) => answer.iter().zip(expected).all(|pair| match pair {
                (
                    Claim::Granted { deliveries: a, attempt: x, .. },
                    Claim::Granted { deliveries: b, attempt: y, .. },
                ) => a == b && x == y,
                (Claim::Held { ms_left: a, mine }, Claim::Held { ms_left: b, mine: other }) => {
                    a.abs_diff(*b) < 5_000 && mine == other
                }
                (answer, expected) => answer == expected,
            }),
            _ => false,
        };
        assert!(same, "{step:?}: redis answered {answer:?}, pure {expected:?}");
        let (Step::Claim { asks, .. }, Answer::Claims(claims)) = (step, answer) else { return };
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
    Lease { id: id.clone(), ask: Arc::clone(&run.ask), held: LeaseProof { token, recent: run.recent } }
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
