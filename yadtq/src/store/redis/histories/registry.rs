//! `beat.lua`, `leave.lua` and [`registry::beat`].

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*, sample::select};
use tokio::runtime::Runtime;

use super::Stage;
use crate::{
    core::{
        names::WorkerId,
        ownership::USED_UP_MS,
        registry::{self, BEAT_MS, Beat, NOTICE_MS, Ring},
    },
    store::Registry,
};

const WORKERS: usize = 7;
const LEASE_MS: u64 = 6_000;
const START_MS: u64 = 1_700_000_000_123;

#[derive(Clone, Debug)]
enum Step {
    Beat {
        worker: usize,
        lease_ms: u64,
        says: Says,
        may_listen: bool,
    },
    /// A round of heartbeats of all that are subscribed, but for one.
    Round {
        but: usize,
    },
    /// More workers than a heartbeat looks at join, and are learned of no more.
    Crowd,
    Subscribe {
        worker: usize,
        is_subscribed: bool,
    },
    /// The worker has a new connection.
    Reconnect {
        worker: usize,
    },
    Leave {
        worker: usize,
    },
    Pass {
        ms: u64,
    },
    Empty,
}

/// What a heartbeat says of the heartbeats before.
#[derive(Clone, Debug)]
enum Says {
    TheTruth,
    /// It was sent before any was answered.
    Nothing,
    /// Times that may never have been.
    Times {
        since_ms: u64,
        answered_ms: u64,
    },
}

/// A subscription goes, comes and goes, while its worker sends no heartbeats and the others look.
fn flicker(worker: usize) -> Vec<Step> {
    let changes = [true, false, true, false].map(|is_subscribed| Step::Subscribe { worker, is_subscribed });
    let truth = Step::Beat { worker, lease_ms: LEASE_MS, says: Says::TheTruth, may_listen: true };
    let look = |change| [change, Step::Round { but: worker }, Step::Pass { ms: NOTICE_MS / 2 + 1 }];
    std::iter::once(truth).chain(changes.into_iter().flat_map(look)).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let steps = prop_oneof![40 => step().prop_map(|step| vec![step]), 1 => (0..WORKERS).prop_map(flicker)];
    vec(steps, 1..80).prop_map(|steps| steps.concat())
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    let time = || (START_MS - 10_000)..(START_MS + 30_000);
    let times = (time(), time()).prop_map(|(since_ms, answered_ms)| Says::Times { since_ms, answered_ms });
    let says = prop_oneof![8 => Just(Says::TheTruth), 1 => Just(Says::Nothing), 1 => times];
    let may_listen = prop_oneof![4 => Just(true), 1 => Just(false)];
    let lease_ms = prop_oneof![4 => Just(LEASE_MS), 1 => Just(1_000)];
    let steps = vec![1, NOTICE_MS - BEAT_MS, BEAT_MS, BEAT_MS + 1, NOTICE_MS - 1, NOTICE_MS];
    let ms = prop_oneof![
        9 => select(steps),
        3 => select(vec![LEASE_MS, 2 * LEASE_MS, 2 * LEASE_MS + 1]),
        1 => Just(USED_UP_MS)
    ];
    prop_oneof![
        8 => (worker.clone(), lease_ms, says, may_listen).prop_map(|(worker, lease_ms, says, may_listen)| {
            Step::Beat { worker, lease_ms, says, may_listen }
        }),
        6 => worker.clone().prop_map(|but| Step::Round { but }),
        1 => Just(Step::Crowd),
        6 => (worker.clone(), any::<bool>())
            .prop_map(|(worker, is_subscribed)| Step::Subscribe { worker, is_subscribed }),
        2 => worker.clone().prop_map(|worker| Step::Reconnect { worker }),
        1 => worker.prop_map(|worker| Step::Leave { worker }),
        10 => ms.prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Empty),
    ]
}

struct World<'a> {
    stage: &'a Stage,
    now_ms: u64,
    ring: Ring,
    subscribed: BTreeSet<WorkerId>,
    /// How often each worker has begun anew.
    lives: [u32; WORKERS],
    /// When the first heartbeat over the present connection was answered, and the last one.
    answered: HashMap<WorkerId, (Option<u64>, u64)>,
}

impl World<'_> {
    async fn play(&mut self, step: &Step) {
        match step {
            Step::Beat { worker, lease_ms, says, may_listen } => {
                let id = self.id(*worker);
                let (since_ms, answered_ms) = match says {
                    Says::TheTruth => self.answered.get(&id).copied().unwrap_or_default(),
                    Says::Nothing => (None, 0),
                    Says::Times { since_ms, answered_ms } => (Some(*since_ms), *answered_ms),
                };
                let (lease_ms, may_listen) = (*lease_ms, *may_listen);
                let is_gone = self.agree(&Beat { worker: &id, since_ms, answered_ms, lease_ms, may_listen }).await;
                self.lives[*worker] += u32::from(is_gone);
            }
            Step::Round { but } => {
                let mut beating = self.subscribed.clone();
                beating.remove(&self.id(*but));
                for id in beating {
                    let (since_ms, answered_ms) = self.answered.get(&id).copied().unwrap_or_default();
                    let lease_ms = LEASE_MS;
                    self.agree(&Beat { worker: &id, since_ms, answered_ms, lease_ms, may_listen: true }).await;
                }
            }
            Step::Crowd => {
                for worker in 0..registry::WALK {
                    let id = format!("w3-x{worker}").into();
                    let lease_ms = LEASE_MS;
                    self.agree(&Beat { worker: &id, since_ms: None, answered_ms: 0, lease_ms, may_listen: true }).await;
                }
            }
            Step::Subscribe { worker, is_subscribed } => {
                let id = self.id(*worker);
                self.stage.subscribe(self.stage.redis.keys.control(&id), *is_subscribed).await;
                if *is_subscribed {
                    self.subscribed.insert(id);
                } else {
                    self.subscribed.remove(&id);
                }
            }
            Step::Reconnect { worker } => {
                let id = self.id(*worker);
                self.answered.entry(id).and_modify(|(since_ms, _)| *since_ms = None);
            }
            Step::Leave { worker } => {
                let id = self.id(*worker);
                self.stage.redis.leave(&id).await.unwrap();
                self.ring.remove(&id, self.now_ms);
            }
            Step::Pass { ms } => {
                self.now_ms += ms;
                self.stage.set_clock(self.now_ms).await;
            }
            Step::Empty => {
                self.ring = Ring::default();
                self.stage.forget(self.stage.redis.fleet_keys().into()).await;
            }
        }
    }

    fn id(&self, worker: usize) -> WorkerId {
        format!("w{worker}-{}", self.lives[worker]).into()
    }

    /// Plays a heartbeat on both sides. Returns whether the id is used up.
    async fn agree(&mut self, by: &Beat<'_>) -> bool {
        let (answer, lost) = self.stage.redis.beat_by(by).await.unwrap();
        let is_subscribed = |worker: &str| self.subscribed.contains(worker);
        let expected = registry::beat(&mut self.ring, by, is_subscribed, self.now_ms);
        let now_ms = self.now_ms;
        assert_eq!(answer.now_us / 1_000, now_ms);
        assert_eq!(
            (answer.is_gone, answer.is_new, answer.is_subscribed, answer.look_again_ms),
            (expected.is_gone, expected.is_new, expected.is_subscribed, expected.look_again_ms),
            "redis, pure: {by:?} at {now_ms}"
        );
        assert_eq!(answer.dead.into_iter().collect::<BTreeSet<_>>(), expected.dead, "redis, pure: {by:?} at {now_ms}");
        let expected_lost = expected.lost.iter().map(|(id, beaten_ms)| (id.to_string(), *beaten_ms));
        assert_eq!(lost, expected_lost.collect::<Vec<_>>(), "redis, pure: {by:?} at {now_ms}");
        if !answer.is_gone {
            let (since_ms, answered_ms) = self.answered.entry(Arc::clone(by.worker)).or_default();
            since_ms.get_or_insert(now_ms);
            *answered_ms = now_ms;
        }
        answer.is_gone
    }
}

#[test]
fn the_script_and_the_pure_function_declare_the_same_dead() {
    let runtime = Runtime::new().unwrap();
    let stage = runtime.block_on(Stage::new());
    let config = ProptestConfig { cases: 150, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let (subscribed, lives, answered) = (BTreeSet::new(), [0; WORKERS], HashMap::new());
            let (now_ms, ring) = (START_MS, Ring::default());
            let mut world = World { stage: &stage, now_ms, ring, subscribed, lives, answered };
            world.play(&Step::Empty).await;
            stage.end_subscriptions().await;
            stage.set_clock(START_MS).await;
            for step in &steps {
                world.play(step).await;
            }
        });
    });
}
