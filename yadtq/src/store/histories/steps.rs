//! What happens in a history.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    core::{
        lifecycle::{ClaimRequest, Claimer, End, FollowUp, Progress, Status, TaskState, Token},
        names::{ClientId, WorkerId},
    },
    store::ttl,
    wire::envelope::{MAX_NUMBER, MAX_SEQ},
};

pub(super) const TASKS: usize = 3;
pub(super) const CLIENTS: [&str; 2] = ["c1", "c2"];
pub(super) const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
pub(super) const LEASE_MS: u64 = 6_000;
pub(super) const START_MS: u64 = 1_700_000_000_123;
/// A token that no clock has reached.
const AHEAD: Token = 4_000_000_000_000_000;
/// A token that no run has.
const FOREIGN: Token = 5;
const DAY_MS: u64 = 24 * 3_600_000;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Call(Call),
    Pass(Pass),
    Leave { worker: WorkerId },
    Lose { task: usize },
    Plant { task: usize, state: TaskState, is_of_a_later_version: bool },
    Spoil { task: usize, foreign: Foreign },
}

#[derive(Clone, Debug)]
pub(super) enum Call {
    Submit { task: usize, eta: Option<u64>, reply_to: Option<ClientId> },
    Claim { by: Claimer, asks: Vec<(usize, Arc<ClaimRequest>)> },
    Finish { runs: Vec<Ending> },
    Extend { run: Run, worker: WorkerId },
    Carry { task: usize, seq: u64 },
    DeadLettered { task: usize, seq: u64 },
    Progress { run: Run, progress: Progress },
    Revoke { task: usize },
    Replay { task: usize, seq: u64 },
    Read { task: usize, waiter: Option<ClientId> },
    Watch { task: usize, watcher: ClientId },
}

#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) run: Run,
    pub(super) end: Arc<End>,
    pub(super) reply_to: Option<ClientId>,
    pub(super) ttl_ms: u64,
}

/// A run that somebody believes in: its token is the task's own, or an older or invented one.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) task: usize,
    pub(super) ask: Arc<ClaimRequest>,
    pub(super) token: Token,
    pub(super) is_current: bool,
    pub(super) recent: bool,
}

/// Time that passes: some, or until something ends, or one ms less or more.
#[derive(Clone, Debug)]
pub(super) enum Pass {
    Ms(u64),
    ToLeaseEnd { task: usize, plus: u64 },
    ToEta { task: usize, plus: u64 },
    ToExpiry { task: usize, plus: u64 },
}

/// What a key of ours may hold that is no task.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    /// Fields of a hash; none: it is something else.
    pub(super) fields: Vec<(&'static str, &'static str)>,
    /// Whether it could be a task but for one number, so that a call that does not need that number may see no more than that it is not
    /// the task that it means.
    pub(super) looks_ours: bool,
}

impl Call {
    /// Leaves away what concerns these tasks. `None`: nothing is left.
    pub(super) fn without(&self, is_left_away: impl Fn(usize) -> bool) -> Option<Self> {
        let mut call = self.clone();
        let is_empty = match &mut call {
            Self::Claim { asks, .. } => {
                asks.retain(|(task, _)| !is_left_away(*task));
                asks.is_empty()
            }
            Self::Finish { runs } => {
                runs.retain(|ending| !is_left_away(ending.run.task));
                runs.is_empty()
            }
            _ => is_left_away(self.tasks()[0]),
        };
        (!is_empty).then_some(call)
    }

    /// The same with one record of each task. Of two records of a task, the later one may have been granted the first time, so that the
    /// earlier one is done the second time, and need not publish the later one again.
    pub(super) fn once_per_task(&self) -> Self {
        let mut call = self.clone();
        if let Self::Claim { asks, .. } = &mut call {
            let mut is_asked = [false; TASKS];
            asks.retain(|(task, _)| !std::mem::replace(&mut is_asked[*task], true));
        }
        call
    }

    /// The tasks that it concerns, in order.
    pub(super) fn tasks(&self) -> Vec<usize> {
        match self {
            Self::Claim { asks, .. } => asks.iter().map(|(task, _)| *task).collect(),
            Self::Finish { runs } => runs.iter().map(|ending| ending.run.task).collect(),
            Self::Extend { run, .. } | Self::Progress { run, .. } => vec![run.task],
            Self::Submit { task, .. }
            | Self::Carry { task, .. }
            | Self::DeadLettered { task, .. }
            | Self::Revoke { task }
            | Self::Replay { task, .. }
            | Self::Read { task, .. }
            | Self::Watch { task, .. } => vec![*task],
        }
    }
}

/// The lowest `seq` of a history.
pub(super) fn base() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(1), 1 => Just(0), 1 => Just(MAX_SEQ - 2)]
}

pub(super) fn step(base: u64) -> impl Strategy<Value = Step> {
    let task = 0..TASKS;
    let plant = (task.clone(), state(base), proptest::bool::weighted(0.2));
    prop_oneof![
        30 => call(base).prop_map(Step::Call),
        6 => pass().prop_map(Step::Pass),
        1 => worker().prop_map(|worker| Step::Leave { worker }),
        1 => task.clone().prop_map(|task| Step::Lose { task }),
        3 => plant.prop_map(|(task, state, is_of_a_later_version)| Step::Plant { task, state, is_of_a_later_version }),
        1 => (task, foreign()).prop_map(|(task, foreign)| Step::Spoil { task, foreign }),
    ]
}

fn call(base: u64) -> impl Strategy<Value = Call> {
    let task = 0..TASKS;
    let seq = base..base + 3;
    let of_seq = || (task.clone(), seq.clone());
    prop_oneof![
        1 => (task.clone(), option::of(due()), option::of(client()))
            .prop_map(|(task, eta, reply_to)| Call::Submit { task, eta, reply_to }),
        7 => (claimer(), vec((0..TASKS, ask(base)), 1..5)).prop_map(|(by, asks)| Call::Claim { by, asks }),
        8 => vec(ending(base), 1..4).prop_map(|mut runs| {
            // A run ends once.
            runs.sort_by_key(|ending| ending.run.task);
            runs.dedup_by_key(|ending| ending.run.task);
            Call::Finish { runs }
        }),
        2 => (run(base), worker()).prop_map(|(run, worker)| Call::Extend { run, worker }),
        2 => of_seq().prop_map(|(task, seq)| Call::Carry { task, seq }),
        2 => of_seq().prop_map(|(task, seq)| Call::DeadLettered { task, seq }),
        2 => (run(base), progress()).prop_map(|(run, progress)| Call::Progress { run, progress }),
        2 => task.clone().prop_map(|task| Call::Revoke { task }),
        2 => of_seq().prop_map(|(task, seq)| Call::Replay { task, seq }),
        1 => (task.clone(), option::of(client())).prop_map(|(task, waiter)| Call::Read { task, waiter }),
        2 => (task.clone(), client()).prop_map(|(task, watcher)| Call::Watch { task, watcher }),
    ]
}

fn ask(base: u64) -> impl Strategy<Value = Arc<ClaimRequest>> {
    (base..base + 3, 1..4_u32, select(vec![1, 2, u64::MAX])).prop_map(|(seq, attempt, nonce)| {
        Arc::new(ClaimRequest { seq, attempt, nonce, task: "add".into(), queue: "q".into() })
    })
}

fn worker() -> impl Strategy<Value = WorkerId> {
    select(WORKERS.to_vec()).prop_map(WorkerId::from)
}

fn client() -> impl Strategy<Value = ClientId> {
    select(CLIENTS.to_vec()).prop_map(ClientId::from)
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

fn run(base: u64) -> impl Strategy<Value = Run> {
    (0..TASKS, ask(base), select(vec![0, 1, 7, AHEAD]), proptest::bool::weighted(0.75), any::<bool>())
        .prop_map(|(task, ask, token, is_current, recent)| Run { task, ask, token, is_current, recent })
}

fn ending(base: u64) -> impl Strategy<Value = Ending> {
    let ttl_ms = select(vec![ttl::MARKER, ttl::RESULT, 30 * DAY_MS]);
    (run(base), end(), option::of(client()), ttl_ms).prop_map(|(run, end, reply_to, ttl_ms)| Ending {
        run,
        end,
        reply_to,
        ttl_ms,
    })
}

fn follow_up() -> impl Strategy<Value = Option<FollowUp>> {
    option::of(prop_oneof![
        Just(FollowUp::Dead),
        Just(FollowUp::Stay),
        (1..4_u32, due()).prop_map(|(attempt, due)| FollowUp::Next { attempt, due })
    ])
}

fn due() -> impl Strategy<Value = u64> {
    select(vec![0, 1_000, START_MS + 5_000, START_MS + 10 * DAY_MS, MAX_NUMBER])
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

fn pass() -> impl Strategy<Value = Pass> {
    let ms = select(vec![1, LEASE_MS - 1, LEASE_MS, ttl::MARKER, ttl::RESULT, ttl::WAITING / 2, ttl::WAITING]);
    let end = || (0..TASKS, 0..3_u64);
    prop_oneof![
        2 => ms.prop_map(Pass::Ms),
        3 => end().prop_map(|(task, plus)| Pass::ToLeaseEnd { task, plus }),
        1 => end().prop_map(|(task, plus)| Pass::ToEta { task, plus }),
        1 => end().prop_map(|(task, plus)| Pass::ToExpiry { task, plus }),
    ]
}

fn foreign() -> impl Strategy<Value = Foreign> {
    const NUMBERS: [&str; 5] = ["seq", "token", "attempt", "deliveries", "eta"];
    let number = (select(NUMBERS.to_vec()), select(vec!["", "x", "-1", "1.5", "1e3"]), select(Status::ALL.to_vec()));
    let garbage = number.prop_map(|(name, garbage, status)| {
        let token = String::leak(FOREIGN.to_string());
        let fields = [("status", status.as_str()), ("seq", "1"), ("token", token), ("task", "add"), ("queue", "q")];
        let mut fields: Vec<_> = fields.into_iter().filter(|(field, _)| *field != name).collect();
        fields.push((name, garbage));
        Foreign { fields, looks_ours: true }
    });
    let other = |fields: &[(&'static str, &'static str)]| Just(Foreign { fields: fields.to_vec(), looks_ours: false });
    prop_oneof![
        1 => other(&[]),
        1 => other(&[("name", "x"), ("seq", "2")]),
        1 => other(&[("status", "done"), ("token", "7")]),
        3 => garbage,
    ]
}

/// Records that the transitions can leave behind, and some that only later versions may.
fn state(base: u64) -> impl Strategy<Value = TaskState> {
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
    let numbers = (base..base + 3, 1..4_u32, select(vec![0, 7, AHEAD]), 0..6_u32);
    let lease = (worker(), select(vec![1, 2, u64::MAX]), any::<bool>(), any::<bool>());
    let lease = (lease, any::<bool>());
    let texts = (json(), json(), option::of(due()), option::of(progress()));
    (status, numbers, lease, follow_up(), texts).prop_map(
        |(status, numbers, lease, follow_up, (result, error, eta, progress))| {
            let (seq, attempt, token, deliveries) = numbers;
            let ((worker, nonce, is_live, revoke), carried) = lease;
            let lease_until = if is_live { START_MS + 100 * LEASE_MS } else { 1 };
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
                    TaskState { status, worker: Some(worker), nonce, lease_until, revoke, progress, eta, ..plain }
                }
                // A task that has another run keeps it until then.
                Status::Scheduled | Status::Retrying => {
                    TaskState { status, follow_up, result, error, eta, progress, ..plain }
                }
                // Its dead letter is perhaps being published.
                Status::Failure => TaskState {
                    status,
                    follow_up,
                    worker: Some(worker).filter(|_| nonce != 2),
                    nonce,
                    lease_until,
                    result,
                    error,
                    eta,
                    ..plain
                },
                _ => TaskState { status, follow_up, result, error, eta, ..plain },
            }
        },
    )
}
