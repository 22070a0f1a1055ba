//! `own.lua` and [`ownership::own`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use proptest::{collection::vec, option, prelude::*, sample::select};
use tokio::runtime::Runtime;

use super::Stage;
use crate::{
    core::{
        names::WorkerId,
        ownership::{self, OwnRequest, Owned, Owner, Partitions, Topic, USED_UP_MS},
    },
    store::Ownership,
};

const TOPICS: [&str; 2] = ["t", "u"];
const WORKERS: usize = 4;
const LEASE_MS: u64 = 6_000;
const START_MS: u64 = 1_700_000_000_123;

#[derive(Clone, Debug)]
enum Step {
    Call {
        call: Call,
        is_sent_twice: bool,
    },
    /// As many workers of one slot call for the first topic. Shares are then left alone for some ms.
    Crowd {
        workers: usize,
        ask: Ask,
    },
    Pass {
        ms: u64,
    },
    Grow {
        topic: usize,
        by: u32,
    },
    Empty {
        topic: usize,
    },
}

#[derive(Clone, Debug)]
struct Call {
    worker: usize,
    /// Whether it is a call of the worker's life before, whose id may be used up.
    is_late: bool,
    slots: u32,
    left_ms: u64,
    is_leaving: bool,
    /// Which workers it says are dead.
    dead: Vec<usize>,
    /// What it says of the topics.
    asks: [Option<Ask>; 2],
}

/// What a worker says of one topic.
#[derive(Clone, Debug)]
struct Ask {
    is_used: bool,
    names: Names,
    /// Which of those that it names it gives: a bit for each, in order.
    gives: u32,
    /// Whether it names what it gives as kept too.
    keeps_all: bool,
}

/// Which partitions a worker names.
#[derive(Clone, Debug)]
enum Names {
    /// Those of its last answer.
    Last,
    /// Those of the answer before.
    Before,
    /// Those of another worker.
    Of(usize),
    Invented(Partitions),
}

fn names() -> impl Strategy<Value = Names> {
    let epoch = select(vec![0, 1, START_MS - 1, START_MS, START_MS + 7_000, 1 << 45]);
    let invented = vec((0..10_i32, epoch), 0..4).prop_map(|pairs| Names::Invented(pairs.into_iter().collect()));
    prop_oneof![12 => Just(Names::Last), 2 => Just(Names::Before), 1 => (0..WORKERS).prop_map(Names::Of), 1 => invented]
}

fn ask() -> impl Strategy<Value = Ask> {
    let gives = prop_oneof![3 => Just(0), 2 => 0..256_u32];
    (any::<bool>(), names(), gives, proptest::bool::weighted(0.2)).prop_map(|(is_used, names, gives, keeps_all)| Ask {
        is_used,
        names,
        gives,
        keeps_all,
    })
}

fn call() -> impl Strategy<Value = Call> {
    let worker = (0..WORKERS, proptest::bool::weighted(0.1), prop_oneof![9 => Just(1), 1 => 0..5_u32]);
    let left_ms = prop_oneof![8 => Just(LEASE_MS), 1 => 0..LEASE_MS];
    let ends = (proptest::bool::weighted(0.05), prop_oneof![9 => Just(vec![]), 1 => vec(0..WORKERS, 1..3)]);
    let asks = (option::weighted(0.9, ask()), option::weighted(0.3, ask()));
    (worker, left_ms, ends, asks).prop_map(|((worker, is_late, slots), left_ms, (is_leaving, dead), asks)| Call {
        worker,
        is_late,
        slots,
        left_ms,
        is_leaving,
        dead,
        asks: asks.into(),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let half = LEASE_MS / 2;
    let ms = prop_oneof![
        6 => 1..4_u64,
        6 => select(vec![1_000, half - 1, half]),
        2 => select(vec![half + 1, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1]),
        1 => Just(USED_UP_MS),
    ];
    let topic = 0..TOPICS.len();
    prop_oneof![
        20 => (call(), proptest::bool::weighted(0.3)).prop_map(|(call, is_sent_twice)| Step::Call { call, is_sent_twice }),
        1 => (1..30_usize, ask()).prop_map(|(workers, ask)| Step::Crowd { workers, ask }),
        8 => ms.prop_map(|ms| Step::Pass { ms }),
        1 => (topic.clone(), 1..4_u32).prop_map(|(topic, by)| Step::Grow { topic, by }),
        2 => topic.prop_map(|topic| Step::Empty { topic }),
    ]
}

struct World<'a> {
    stage: &'a Stage,
    now_ms: u64,
    topics: [Topic; 2],
    partitions: [u32; 2],
    /// How often each worker has begun anew.
    lives: [u32; WORKERS],
    /// The last two answers that a worker has had for a topic, the last one first.
    learned: HashMap<(WorkerId, usize), [Partitions; 2]>,
}

impl World<'_> {
    async fn play(&mut self, step: &Step) {
        match step {
            Step::Call { call, is_sent_twice } => {
                let (by, requests) = self.words(call);
                let first = self.agree(&by, &requests).await;
                if *is_sent_twice {
                    let second = self.agree(&by, &requests).await;
                    for (first, second) in first.iter().zip(&second) {
                        assert_eq!(what_is_owned(first), what_is_owned(second), "{by:?} asks twice: {requests:?}");
                    }
                }
                if !call.is_late && first.contains(&Owned::Gone) {
                    self.lives[call.worker] += 1;
                }
                for (request, answer) in requests.iter().zip(first) {
                    self.learn(&by.worker, request, answer);
                }
            }
            Step::Crowd { workers, ask } => {
                for worker in 0..*workers {
                    let by = owner(&format!("x{worker}").into());
                    let request = self.request(&by.worker, 0, ask);
                    let answer = self.agree(&by, std::slice::from_ref(&request)).await.remove(0);
                    self.learn(&by.worker, &request, answer);
                }
            }
            Step::Pass { ms } => {
                self.now_ms += ms;
                self.stage.set_clock(self.now_ms).await;
            }
            Step::Grow { topic, by } => self.partitions[*topic] += by,
            Step::Empty { topic } => {
                self.topics[*topic] = Topic::default();
                self.stage.forget(self.stage.redis.owners_keys(TOPICS[*topic])).await;
            }
        }
    }

    /// Plays a call on both sides. Returns the answers.
    async fn agree(&mut self, by: &Owner, requests: &[OwnRequest]) -> Vec<Owned> {
        let answers = self.stage.redis.own(by, requests).await.unwrap();
        let answers: Vec<Owned> = answers.into_iter().map(Result::unwrap).collect();
        let woken = self.stage.take_woken().await;
        let (mut expected, mut expected_woken) = (Vec::new(), BTreeSet::new());
        for request in requests {
            let topic = TOPICS.iter().position(|topic| **topic == *request.topic).unwrap();
            let (owned, wake) = ownership::own(&mut self.topics[topic], by, request, self.now_ms);
            expected.push(owned);
            expected_woken.extend(wake);
        }
        let now_ms = self.now_ms;
        assert_eq!(answers, expected, "redis, pure: {by:?} asks {requests:?} at {now_ms}");
        assert_eq!(woken, expected_woken, "redis, pure: {by:?} asks {requests:?} at {now_ms}");
        answers
    }

    fn words(&self, call: &Call) -> (Owner, Vec<OwnRequest>) {
        let id = |worker: usize, ago: u32| -> WorkerId {
            format!("w{worker}-{}", self.lives[worker].saturating_sub(ago)).into()
        };
        let worker = id(call.worker, u32::from(call.is_late));
        let asks = call.asks.iter().enumerate().filter_map(|(topic, ask)| Some((topic, ask.as_ref()?)));
        let requests = asks.map(|(topic, ask)| self.request(&worker, topic, ask)).collect();
        let by = Owner {
            slots: call.slots,
            left_ms: call.left_ms,
            is_leaving: call.is_leaving,
            dead: call.dead.iter().map(|dead| id(*dead, 0)).collect(),
            ..owner(&worker)
        };
        (by, requests)
    }

    fn request(&self, worker: &WorkerId, topic: usize, ask: &Ask) -> OwnRequest {
        let learned = |worker: &WorkerId, ago: usize| {
            self.learned.get(&(Arc::clone(worker), topic)).map(|learned| learned[ago].clone()).unwrap_or_default()
        };
        let named = match &ask.names {
            Names::Last => learned(worker, 0),
            Names::Before => learned(worker, 1),
            Names::Of(other) => learned(&format!("w{other}-{}", self.lives[*other]).into(), 0),
            Names::Invented(partitions) => partitions.clone(),
        };
        let is_given = |at: usize| ask.gives >> at.min(31) & 1 == 1;
        let of = |is_in: &dyn Fn(usize) -> bool| -> Partitions {
            named
                .iter()
                .enumerate()
                .filter(|(at, _)| is_in(*at))
                .map(|(_, (&partition, &epoch))| (partition, epoch))
                .collect()
        };
        OwnRequest {
            topic: TOPICS[topic].into(),
            partitions: self.partitions[topic],
            is_used: ask.is_used,
            keep: of(&|at| ask.keeps_all || !is_given(at)),
            give: of(&is_given),
        }
    }

    fn learn(&mut self, worker: &WorkerId, request: &OwnRequest, answer: Owned) {
        let topic = TOPICS.iter().position(|topic| **topic == *request.topic).unwrap();
        let Owned::Owns { partitions, .. } = answer else { return };
        let learned =
            self.learned.entry((Arc::clone(worker), topic)).or_insert_with(|| [BTreeMap::new(), BTreeMap::new()]);
        learned[1] = std::mem::replace(&mut learned[0], partitions);
    }
}

fn owner(worker: &WorkerId) -> Owner {
    let worker = Arc::clone(worker);
    Owner { worker, slots: 1, lease_ms: LEASE_MS, left_ms: LEASE_MS, is_leaving: false, dead: Vec::new() }
}

/// When to call again may be sooner the second time.
fn what_is_owned(answer: &Owned) -> Option<(&Partitions, usize)> {
    match answer {
        Owned::Gone => None,
        Owned::Owns { partitions, give, .. } => Some((partitions, *give)),
    }
}

#[test]
fn the_script_and_the_pure_function_hand_out_the_same() {
    let runtime = Runtime::new().unwrap();
    let stage = runtime.block_on(Stage::new());
    let config = ProptestConfig { cases: 150, ..ProptestConfig::default() };
    proptest!(config, |(steps in vec(step(), 1..60), partitions in [0..9_u32, 0..9_u32])| {
        runtime.block_on(async {
            let (topics, lives, learned) = (Default::default(), Default::default(), HashMap::new());
            let mut world = World { stage: &stage, now_ms: START_MS, topics, partitions, lives, learned };
            for topic in 0..TOPICS.len() {
                world.play(&Step::Empty { topic }).await;
            }
            stage.take_woken().await;
            stage.set_clock(START_MS).await;
            for step in &steps {
                world.play(step).await;
            }
        });
    });
}
