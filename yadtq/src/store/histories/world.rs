//! A history as it goes on, on both sides.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    super::{
        Answers, Channels, DeadTask, Finish, Lease, Notice, NoticeReceiver, Registry, Report, StoreError, Submission,
        Tasks, conformance::Subject, mailbox::Mailbox, memory::MemoryStore, redis::stage::Stage,
    },
    steps::{CLIENTS, Call, Foreign, LEASE_MS, Pass, Run, START_MS, Step, TASKS, WORKERS},
};
use crate::{
    clock::{Clock, ManualClock},
    core::{
        lifecycle::{LeaseProof, TaskState, Token},
        names::TaskId,
    },
};

/// Latest time that a history reaches: the scripts count in µs, which are exact for some hundred years only.
const END_MS: u64 = START_MS + 400 * 24 * 3_600_000;

/// What a call was answered for each of its tasks, in Rust's notation.
type Said = Vec<Result<String, StoreError>>;

pub(super) struct World<'a> {
    stage: &'a Stage,
    memory: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    ids: [TaskId; TASKS],
    /// What was put at the keys of tasks in Redis that are none, and what Redis holds there.
    spoiled: [Option<(Foreign, Option<Bytes>)>; TASKS],
    clients: BTreeMap<String, Mailbox>,
    workers: BTreeMap<String, Mailbox>,
    /// The same in memory, clients first.
    receivers: Vec<Box<dyn NoticeReceiver>>,
}

/// What readers see of a task, and when it is forgotten.
type Record = (Option<TaskState>, Option<u64>);

impl<'a> World<'a> {
    pub(super) async fn new(stage: &'a Stage) -> Self {
        let clock = Arc::new(ManualClock::at_us(START_MS * 1_000 + 999));
        let memory = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>);
        stage.set_clock(START_MS).await;
        stage.forget_fleet().await;
        let mailboxes = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Mailbox::default())).collect();
        let (clients, workers) = (mailboxes(&CLIENTS), mailboxes(&WORKERS));
        let mut receivers = Vec::new();
        for client in CLIENTS {
            receivers.push(memory.replies(&client.into()).await.unwrap());
        }
        for worker in WORKERS {
            receivers.push(memory.control(&worker.into()).await.unwrap());
        }
        for receiver in &mut receivers {
            assert_eq!(receiver.next().await, Notice::Missed);
        }
        let ids = std::array::from_fn(|_| TaskId::new());
        Self { stage, memory, clock, ids, spoiled: Default::default(), clients, workers, receivers }
    }

    pub(super) async fn play(&mut self, step: &Step, is_sent_twice: bool) {
        match step {
            Step::Call(call) if is_sent_twice => {
                let (call, tokens) = (call.once_per_task(), self.tokens().await);
                let (first, notices) = self.agree(&call, &tokens).await;
                self.send_again(&call, &tokens, &first, &notices).await;
            }
            Step::Call(call) => {
                let tokens = self.tokens().await;
                self.agree(call, &tokens).await;
            }
            Step::Pass(pass) => self.pass(pass).await,
            Step::Leave { worker } => {
                self.memory.leave(worker).await.unwrap();
                self.stage.redis.leave(worker).await.unwrap();
            }
            Step::Lose { task } => self.plant(*task, None).await,
            Step::Plant { task, state, is_of_a_later_version } => {
                self.plant(*task, Some(state.clone())).await;
                if *is_of_a_later_version {
                    self.stage.add_fields(&self.ids[*task], &[("mood", "good")]).await;
                }
            }
            Step::Spoil { task, foreign } => {
                self.plant(*task, None).await;
                self.stage.plant_foreign(&self.ids[*task], &foreign.fields).await;
                let contents = self.stage.contents(&self.ids[*task]).await;
                self.spoiled[*task] = Some((foreign.clone(), contents));
            }
        }
        self.compare_records(step).await;
    }

    async fn plant(&mut self, task: usize, state: Option<TaskState>) {
        let id = &self.ids[task];
        self.spoiled[task] = None;
        self.stage.redis.plant(id, state.clone()).await;
        self.memory.plant(id, state).await;
        self.stage.set_expiry(id, self.memory.expires_ms(id)).await;
    }

    async fn pass(&mut self, pass: &Pass) {
        let now_ms = self.clock.now_ms();
        let state = async |task: &usize| self.in_memory(*task).await;
        // One ms less, then just then, then one more.
        let to = |end: Option<u64>, plus: u64| (end.unwrap_or(0) + plus).saturating_sub(now_ms + 1);
        let ms = match pass {
            Pass::Ms(ms) => *ms,
            Pass::ToLeaseEnd { task, plus } => to(state(task).await.0.map(|state| state.lease_until), *plus),
            Pass::ToEta { task, plus } => to(state(task).await.0.and_then(|state| state.eta), *plus),
            Pass::ToExpiry { task, plus } => to(state(task).await.1, *plus),
        };
        if now_ms + ms > END_MS {
            return;
        }
        self.clock.advance(Duration::from_millis(ms));
        self.stage.set_clock(now_ms + ms).await;
        self.stage.lapse(&self.ids, now_ms + ms).await;
    }

    /// Plays a call on both sides. Returns what was answered and published.
    async fn agree(&mut self, call: &Call, tokens: &[Option<Token>; TASKS]) -> (Said, Vec<Vec<Notice>>) {
        let answers = make(&*self.stage.redis, call, &self.ids, tokens).await;
        let expected = match call.without(|task| self.spoiled[task].is_some()) {
            Some(call) => make(&*self.memory, &call, &self.ids, tokens).await,
            None => Vec::new(),
        };
        let mut expected = expected.into_iter();
        for (task, answer) in call.tasks().into_iter().zip(&answers) {
            match &self.spoiled[task] {
                None => {
                    let expected = expected.next().unwrap().unwrap();
                    assert_eq!(answer.as_ref().unwrap(), &expected, "redis, memory: {call:?}");
                }
                Some((foreign, _)) => self.is_refused(call, task, foreign, answer),
            }
        }
        self.stage.deliver(&self.clients, &self.workers).await;
        let mailboxes = self.clients.values().chain(self.workers.values());
        let published: Vec<_> = mailboxes.map(|mailbox| drain(|| mailbox.next().now_or_never())).collect();
        let in_memory = self.receivers.iter_mut().map(|receiver| drain(|| receiver.next().now_or_never()));
        assert_eq!(published, in_memory.collect::<Vec<_>>(), "redis, memory: published by {call:?}");
        (answers, published)
    }

    /// A key that is no task's is named, or nothing is said to have been done.
    fn is_refused(&self, call: &Call, task: usize, foreign: &Foreign, answer: &Result<String, StoreError>) {
        let has = |status: &str| foreign.fields.contains(&("status", status));
        let is_fair = match (call, answer) {
            (_, Err(StoreError::WrongType { key, .. })) => key.contains(self.ids[task].as_str()),
            // It only says that the task is not new.
            (Call::Submit { .. }, Ok(_)) => foreign.fields.iter().any(|(name, _)| *name == "status"),
            // To see that a run does not hold the task, its token is enough.
            (Call::Extend { .. } | Call::Progress { .. }, Ok(said)) => {
                foreign.looks_ours && ["Lost", "false"].contains(&&**said)
            }
            (Call::Finish { .. }, Ok(said)) => foreign.looks_ours && (said == "Stale" || has("revoked")),
            _ => false,
        };
        assert!(is_fair, "{call:?} on {foreign:?} is answered {answer:?}");
    }

    /// Sends a call again, as somebody does whose first answer was lost.
    async fn send_again(
        &mut self, call: &Call, tokens: &[Option<Token>; TASKS], first: &Said, notices: &[Vec<Notice>],
    ) {
        let before = self.records().await;
        let (again, more) = self.agree(call, tokens).await;
        let text = |said: &Said| said.iter().map(|answer| format!("{answer:?}")).collect::<Vec<_>>();
        assert_eq!(text(first), text(&again), "{call:?} is answered, first and again");
        assert_eq!(before, self.records().await, "{call:?} was sent, once and again");
        for (first, more) in notices.iter().zip(more) {
            // A worker may be asked again to end a run.
            assert!(more.is_empty() || more == *first && matches!(more[..], [Notice::Revoke(_)]), "{call:?}: {more:?}");
        }
    }

    async fn tokens(&self) -> [Option<Token>; TASKS] {
        self.records().await.map(|(state, _)| state.map(|state| state.token))
    }

    async fn in_memory(&self, task: usize) -> Record {
        let id = &self.ids[task];
        let state = self.memory.read(std::slice::from_ref(id), None).await.unwrap().remove(0);
        (state.unwrap(), self.memory.expires_ms(id))
    }

    async fn records(&self) -> [Record; TASKS] {
        let mut records: [Record; TASKS] = Default::default();
        for (task, record) in records.iter_mut().enumerate() {
            *record = self.in_memory(task).await;
        }
        records
    }

    async fn compare_records(&self, step: &Step) {
        let states = self.stage.redis.read(&self.ids, None).await.unwrap();
        let expiries = self.stage.expiries(&self.ids).await;
        let records = states.into_iter().zip(expiries).zip(self.records().await).enumerate();
        for (task, ((state, expiry), expected)) in records {
            match &self.spoiled[task] {
                None => assert_eq!((state.unwrap(), expiry), expected, "redis, memory: after {step:?}"),
                Some((foreign, contents)) => {
                    assert!(matches!(state, Err(StoreError::WrongType { .. })), "{foreign:?} is read as {state:?}");
                    assert_eq!(&self.stage.contents(&self.ids[task]).await, contents, "{step:?} changes {foreign:?}");
                    assert_eq!(expiry, None, "{step:?} lets {foreign:?} expire");
                }
            }
        }
    }
}

fn drain(next: impl FnMut() -> Option<Notice>) -> Vec<Notice> {
    std::iter::from_fn(next).collect()
}

async fn make(store: &dyn Subject, call: &Call, ids: &[TaskId; TASKS], tokens: &[Option<Token>; TASKS]) -> Said {
    let lease = |run: &Run| {
        let token = tokens[run.task].filter(|_| run.is_current).unwrap_or(run.token);
        let held = LeaseProof { token, recent: run.recent };
        Lease { id: ids[run.task].clone(), ask: Arc::clone(&run.ask), held }
    };
    match call {
        Call::Submit { task, eta, reply_to } => {
            let (id, eta, reply_to) = (ids[*task].clone(), *eta, reply_to.clone());
            let submission = Submission { id, task: "add".into(), queue: "q".into(), reply_to, eta };
            vec![store.submit(&[submission]).await.map(|()| String::new())]
        }
        Call::Claim { by, asks } => {
            let asks = asks.iter().map(|(task, ask)| (ids[*task].clone(), Arc::clone(ask)));
            said(store.claim(by, &asks.collect::<Vec<_>>()).await)
        }
        Call::Finish { runs } => {
            let runs = runs.iter().map(|ending| Finish {
                lease: lease(&ending.run),
                end: Arc::clone(&ending.end),
                reply_to: ending.reply_to.clone(),
                ttl_ms: ending.ttl_ms,
            });
            said(store.finish(&runs.collect::<Vec<_>>()).await)
        }
        Call::Extend { run, worker } => said(store.extend(worker, LEASE_MS, &[lease(run)]).await),
        Call::Carry { task, seq } => said(store.carry(&[(ids[*task].clone(), *seq)]).await),
        Call::DeadLettered { task, seq } => said(store.dead_lettered(&[(ids[*task].clone(), *seq)]).await),
        Call::Progress { run, progress } => {
            let Lease { id, held, .. } = lease(run);
            said(store.progress(&[Report { id, token: held.token, progress: progress.clone() }]).await)
        }
        Call::Revoke { task } => said(store.revoke(&ids[*task..=*task]).await),
        Call::Replay { task, seq } => {
            let id = ids[*task].clone();
            said(store.replay(&[DeadTask { id, seq: *seq, task: "add".into(), queue: "q".into() }]).await)
        }
        Call::Read { task, waiter } => said(store.read(&ids[*task..=*task], waiter.as_ref()).await),
        Call::Watch { task, watcher } => said(store.watch(&ids[*task..=*task], watcher).await),
    }
}

fn said<T: Debug>(answers: Answers<T>) -> Said {
    answers.unwrap().into_iter().map(|answer| answer.map(|answer| format!("{answer:?}"))).collect()
}
