//! Fleets of workers in simulated time: up to a thousand of them on ten thousand partitions, with latencies, crashes and outages.
//!
//! ```text
//!  worker ── own, beat ──► wire (0.5 to 1.5 ms, at times 20 ms more) ──► Topic and Ring, the pure functions
//!    ▲  ▲                                                                   │
//!    │  └───────────────── answer ◄── wire ◄────────────────────────────────┤
//!    └──────── wake-up ◄── wire ◄───────────────────────────────────────────┘
//! ```
//! Workers behave as those in `worker/intake/ownership`, without their I/O: a heartbeat every 0.5 s and a call every second, a commit of 4
//! to 64 ms before a partition is given. At every step it is checked that no partition has two readers, that epochs grow, and that
//! only dead workers are declared dead. Everything is decided by the seed, which a failed test prints.

mod plays;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use self::worker::{Condition, Worker};
use super::{OwnRequest, Owned, Owner, Partitions, Topic, own};
use crate::core::{
    names::WorkerId,
    registry::{Beat, Pulse, Ring, beat},
};

/// A time or a length of time, in µs.
type Us = u64;

const MS: Us = 1_000;
const SECOND: Us = 1_000 * MS;
const LEASE: Us = 6 * SECOND;
const BEAT: Us = 500 * MS;
const CALL: Us = SECOND;
/// How long a worker without connection reads on after its last answered heartbeat.
const UNSURE: Us = 750 * MS;

/// What happens at a time. Workers are named by their place in the list of all that have ever been.
#[derive(Debug)]
enum Event {
    /// A worker starts.
    Start,
    BeatIsDue(usize),
    CallIsDue(usize),
    BeatArrives {
        worker: usize,
        link: u32,
        sent: Us,
        since_ms: Option<u64>,
        answered_ms: u64,
    },
    BeatIsAnswered {
        worker: usize,
        link: u32,
        sent: Us,
        learned_ms: u64,
        pulse: Pulse,
    },
    CallArrives {
        link: u32,
        sent: Us,
        worker: usize,
        by: Owner,
        request: OwnRequest,
    },
    CallIsAnswered {
        worker: usize,
        link: u32,
        sent: Us,
        answer: Owned,
    },
    /// The commit of partitions that were released is acknowledged.
    Committed {
        worker: usize,
        released: Partitions,
    },
    Woken(usize),
    /// A worker without connection may have been declared dead.
    Lapses {
        worker: usize,
        beaten: Us,
    },
    Connects(usize),
    /// It stood still until now.
    GoesOn(usize),
    /// The last call of a worker that leaves arrives.
    Leaves(usize),
}

impl Event {
    /// Whom it concerns, if it happens at a worker: while that stands still, it waits.
    fn at_worker(&self) -> Option<usize> {
        match self {
            Self::BeatIsDue(worker)
            | Self::CallIsDue(worker)
            | Self::BeatIsAnswered { worker, .. }
            | Self::CallIsAnswered { worker, .. }
            | Self::Committed { worker, .. }
            | Self::Woken(worker)
            | Self::Lapses { worker, .. }
            | Self::Connects(worker) => Some(*worker),
            Self::Start | Self::BeatArrives { .. } | Self::CallArrives { .. } | Self::GoesOn(_) | Self::Leaves(_) => {
                None
            }
        }
    }
}

/// What was measured since the last reset.
#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    moves: usize,
    evaluations: usize,
    /// From the death of a reader to the next one, for each partition.
    takeovers: Vec<Us>,
    /// From the declaration of the death to the next reader.
    after_notice: Vec<Us>,
}

/// A fleet, its store, and the time.
struct Fleet {
    seed: u64,
    rng: fastrand::Rng,
    now: Us,
    events: BTreeMap<(Us, u64), Event>,
    event_count: u64,
    topic: Topic,
    ring: Ring,
    /// Which run of the store it is: connections end with it.
    server: u32,
    is_up: bool,
    partitions: u32,
    workers: Vec<Worker>,
    by_id: HashMap<WorkerId, usize>,
    /// Who reads each partition, and who read it last.
    readers: Vec<Option<usize>>,
    last_readers: Vec<Option<usize>>,
    /// The last epoch that was seen, and whose it is.
    epochs: Vec<(u64, usize)>,
    /// Partitions whose reader is dead: since when, and who that was.
    lost: BTreeMap<i32, (Us, usize)>,
    declared: HashMap<usize, Us>,
    figures: Figures,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (workers, at) = (self.alive().count(), self.now / MS);
            eprintln!("{workers} workers live at {at} ms; the same again with YADTQ_TEST_SEED={}", self.seed);
        }
    }
}

impl Fleet {
    /// A fleet of workers that have started within a second, and have found their shares.
    fn new(workers: usize, partitions: u32) -> Self {
        let seed = std::env::var("YADTQ_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let count = partitions as usize;
        let mut fleet = Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now: 1_700_000_000 * SECOND,
            events: BTreeMap::new(),
            event_count: 0,
            topic: Topic::default(),
            ring: Ring::default(),
            server: 0,
            is_up: true,
            partitions,
            workers: Vec::new(),
            by_id: HashMap::new(),
            readers: vec![None; count],
            last_readers: vec![None; count],
            epochs: vec![(0, 0); count],
            lost: BTreeMap::new(),
            declared: HashMap::new(),
            figures: Figures::default(),
        };
        for _ in 0..workers {
            let wait = fleet.rng.u64(..SECOND);
            fleet.after(wait, Event::Start);
        }
        fleet.go(5 * SECOND);
        fleet.assert_settled();
        fleet.reset();
        fleet
    }

    /// Measures from now on.
    fn reset(&mut self) {
        self.figures = Figures::default();
        self.topic.evaluations = 0;
    }

    fn after(&mut self, wait: Us, event: Event) {
        self.event_count += 1;
        self.events.insert((self.now + wait, self.event_count), event);
    }

    /// Lets time pass.
    fn go(&mut self, time: Us) {
        let end = self.now + time;
        while let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= end) {
            let ((at, _), event) = first.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// How long a message is under way.
    fn wire(&mut self) -> Us {
        let late = if self.rng.u8(..100) == 0 { 20 * MS } else { 0 };
        self.rng.u64(500..1_500) + late
    }

    fn now_ms(&self) -> u64 {
        self.now / MS
    }

    fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.workers.len()).filter(|&at| self.workers[at].is_alive())
    }

    fn any(&mut self) -> usize {
        let alive: Vec<usize> = self.alive().collect();
        alive[self.rng.usize(..alive.len())]
    }

    fn happen(&mut self, event: Event) {
        if let Some(at) = event.at_worker() {
            match self.workers[at].condition {
                Condition::StandsStill { until } => return self.after(until - self.now, event),
                Condition::Dead | Condition::Leaves => return,
                Condition::Runs => {}
            }
        }
        match event {
            Event::Start => {
                self.start();
            }
            Event::BeatIsDue(at) => self.send_beat(at),
            Event::CallIsDue(at) => self.call_if_due(at),
            Event::BeatArrives { worker, link, sent, since_ms, answered_ms } => {
                if self.reaches(worker, link) {
                    self.beat(worker, link, sent, since_ms, answered_ms);
                }
            }
            Event::BeatIsAnswered { worker, link, sent, learned_ms, pulse } => {
                self.beat_answered(worker, link, sent, learned_ms, &pulse);
            }
            Event::CallArrives { worker, link, sent, by, request } => {
                if self.reaches(worker, link) {
                    let answer = self.own(worker, &by, &request);
                    let wait = self.wire();
                    self.after(wait, Event::CallIsAnswered { worker, link, sent, answer });
                }
            }
            Event::CallIsAnswered { worker, link, sent, answer } => self.call_answered(worker, link, sent, answer),
            Event::Committed { worker, released } => self.committed(worker, &released),
            Event::Woken(at) => self.woken(at),
            Event::Lapses { worker, beaten } => {
                if self.workers[worker].beaten == beaten {
                    self.stop_all(worker);
                }
            }
            Event::Connects(at) => self.connect(at),
            Event::GoesOn(at) => {
                if self.workers[at].is_alive() {
                    self.workers[at].condition = Condition::Runs;
                }
            }
            Event::Leaves(at) => self.left(at),
        }
    }

    // The store.

    /// Whether what was sent over a connection reaches the store. What a killed process has sent does.
    fn reaches(&self, at: usize, link: u32) -> bool {
        self.is_up && self.workers[at].link == link && self.workers[at].server == Some(self.server)
    }

    fn own(&mut self, at: usize, by: &Owner, request: &OwnRequest) -> Owned {
        let evaluations = self.topic.evaluations;
        let now_ms = self.now_ms();
        let (answer, wake) = own(&mut self.topic, by, request, now_ms);
        self.figures.evaluations += self.topic.evaluations - evaluations;
        if let Owned::Owns { partitions, .. } = &answer {
            for (&partition, &epoch) in partitions {
                let last = &mut self.epochs[partition as usize];
                assert!(*last == (epoch, at) || epoch > last.0, "partition {partition}: {epoch} follows {last:?}");
                *last = (epoch, at);
            }
        }
        for worker in wake {
            let wait = self.wire();
            self.after(wait, Event::Woken(self.by_id[&worker]));
        }
        answer
    }

    fn beat(&mut self, at: usize, link: u32, sent: Us, since_ms: Option<u64>, answered_ms: u64) {
        let (now_ms, worker) = (self.now_ms(), Arc::clone(&self.workers[at].id));
        let (workers, by_id, server) = (&self.workers, &self.by_id, self.server);
        let is_subscribed = |id: &str| by_id.get(id).is_some_and(|&at| workers[at].is_subscribed(server));
        let by = Beat { worker: &worker, since_ms, answered_ms, lease_ms: LEASE / MS, may_listen: true };
        let pulse = beat(&mut self.ring, &by, is_subscribed, now_ms);
        for (lost, _) in &pulse.lost {
            let victim = self.by_id[lost];
            let condition = self.workers[victim].condition;
            assert_eq!(condition, Condition::Dead, "{lost} is declared dead");
            self.declared.insert(victim, self.now);
        }
        let wait = self.wire();
        self.after(wait, Event::BeatIsAnswered { worker: at, link, sent, learned_ms: now_ms, pulse });
    }

    /// All that it knows is lost; connections stay.
    fn empty(&mut self) {
        self.topic = Topic::default();
        self.ring = Ring::default();
    }

    /// It ends, and comes back empty.
    fn restart_empty(&mut self, away: Us) {
        self.empty();
        self.server += 1;
        for at in self.alive().collect::<Vec<_>>() {
            self.lose_connection(at, away);
        }
    }

    // What must be so.

    /// Partitions, slots of those that live.
    fn holdings(&self) -> Vec<(usize, u64)> {
        self.alive().map(|at| (self.workers[at].owned.len(), u64::from(self.workers[at].slots))).collect()
    }

    /// Every partition is owned and read by exactly one worker that lives, and shares are within one of the quota.
    fn assert_settled(&self) {
        let alive: Vec<usize> = self.alive().collect();
        assert_eq!(self.topic.members.len(), alive.len(), "members are those that live");
        let slots: u64 = alive.iter().map(|&at| u64::from(self.workers[at].slots)).sum();
        let mut owners = 0;
        for &at in &alive {
            let worker = &self.workers[at];
            assert_eq!(worker.owned, self.topic.members[&worker.id].owns, "{} knows what it owns", worker.id);
            let (owned, quota) = (worker.owned.len() as f64, f64::from(self.partitions) * f64::from(worker.slots));
            assert!((owned - quota / slots as f64).abs() < 1.0, "{} owns {owned} of {quota} / {slots}", worker.id);
            for &partition in worker.owned.keys() {
                assert_eq!(self.readers[partition as usize], Some(at), "partition {partition} is read by its owner");
                owners += 1;
            }
        }
        assert_eq!(owners, self.partitions, "every partition has one owner");
        assert!(self.topic.free.is_empty() && self.topic.unknown.is_empty() && self.lost.is_empty());
    }
}

/// How many partitions must leave their owners, in any allocation within one of the quota: number of partitions and slots by worker.
fn fewest_moves(holdings: &[(usize, u64)], partitions: u32) -> usize {
    let total: u64 = holdings.iter().map(|(_, slots)| slots).sum();
    let (mut over, mut gain, mut odd) = (0, 0, partitions as usize);
    for &(count, slots) in holdings {
        let quota = u64::from(partitions) * slots;
        let (share, rest) = (usize::try_from(quota / total).unwrap_or(usize::MAX), quota % total);
        over += count.saturating_sub(share);
        gain += usize::from(count > share && rest > 0);
        odd -= share;
    }
    over - gain.min(odd)
}
