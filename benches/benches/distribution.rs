//! How evenly work is spread over workers that have free slots, next to what one shared queue would do with the same tasks.
//!
//! `cargo bench -p yadtq-benches --bench distribution [-- even | capacity | placement | many | skewed | cost ..]`
//!
//! All workers are in this process. Durations and delays are measured in the tasks; what is computed from them is marked.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    env,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fred::{
    clients::Client as Redis,
    interfaces::{ClientLike as _, LuaInterface as _},
    types::{Value, config::Config},
};
use futures_util::{StreamExt as _, stream};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use tokio::sync::watch;
use yadtq::{Client, Context, RunningWorker, TaskId, Worker};

const TAKE_SLOTS: &str = include_str!("../../yadtq/src/store/redis/lua/take_slots.lua");
/// How often per second a worker with more records than slots looks for slots of others, if there are none.
const SEARCHES_PER_SECOND: f64 = 4.0;

/// One task that ran.
#[derive(Clone, Copy, Debug)]
struct Ran {
    number: usize,
    worker: usize,
    started: Instant,
    ended: Instant,
}

/// What all workers report to.
struct Book {
    ran: Mutex<Vec<Ran>>,
    count: watch::Sender<usize>,
}

/// What one worker gives its tasks.
struct Desk {
    worker: usize,
    book: Arc<Book>,
}

#[yadtq::task]
async fn nap(ctx: Context, number: usize, micros: u64) -> Result<(), yadtq::TaskError> {
    let desk = ctx.state::<Desk>()?;
    let started = Instant::now();
    tokio::time::sleep(Duration::from_micros(micros)).await;
    let ran = Ran { number, worker: desk.worker, started, ended: Instant::now() };
    desk.book.ran.lock().expect("no task panics").push(ran);
    desk.book.count.send_modify(|count| *count += 1);
    Ok(())
}

/// Workers with a queue of their own.
struct Fleet {
    topic: String,
    book: Arc<Book>,
    workers: Vec<RunningWorker>,
    producer: FutureProducer,
    _client: Client,
}

impl Fleet {
    /// Workers with these numbers of slots that have settled.
    async fn start(partitions: i32, slots: &[usize]) -> Self {
        let namespace = format!("bench-{}", &TaskId::new().as_str()[24..]);
        let client = Client::builder().namespace(&namespace).partitions(partitions).build().await.expect("a client");
        let (count, _) = watch::channel(0);
        let book = Arc::new(Book { ran: Mutex::default(), count });
        // The first task creates the topic.
        nap.call(0, 0).send(&client).await.expect("kafka acknowledges");
        let mut workers = Vec::new();
        for (worker, &slots) in slots.iter().enumerate() {
            let desk = Desk { worker, book: Arc::clone(&book) };
            let worker = Worker::builder().client(&client).register(nap).state(desk).concurrency(slots);
            workers.push(worker.start().await.expect("a worker"));
        }
        let producer = ClientConfig::new()
            .set("bootstrap.servers", var("YADTQ_KAFKA", "localhost:9092"))
            .set("linger.ms", "2")
            .create()
            .expect("a producer");
        let topic = format!("{namespace}.default");
        book.count.subscribe().wait_for(|&count| count > 0).await.expect("the book is kept");
        let mut fleet = Self { topic, book, workers, producer, _client: client };
        let one_each: Vec<_> = (0..partitions).map(|partition| (partition, Duration::from_millis(1))).collect();
        fleet.run(&one_each).await;
        // Until the partitions have moved to where they belong.
        tokio::time::sleep(Duration::from_secs(3)).await;
        fleet
    }

    /// Sends tasks, by partition and duration, and waits until all have run. Returns when sending began, and what ran.
    async fn run(&mut self, tasks: &[(i32, Duration)]) -> (Instant, Vec<Ran>) {
        self.book.ran.lock().expect("no task panics").clear();
        self.book.count.send_replace(0);
        let mut count = self.book.count.subscribe();
        let begun = Instant::now();
        let sends = stream::iter(tasks.iter().enumerate()).map(|(number, &(partition, duration))| {
            let (id, micros) = (TaskId::new().to_string(), duration.as_micros());
            let value = format!(r#"{{"task-id":"{id}","task":"nap","args":[{number},{micros}]}}"#);
            let (topic, producer) = (&self.topic, &self.producer);
            async move {
                let record = FutureRecord::to(topic).key(&id).payload(&value).partition(partition);
                producer.send(record, Duration::from_secs(60)).await.expect("acknowledged");
            }
        });
        sends.buffer_unordered(10_000).collect::<Vec<()>>().await;
        count.wait_for(|&count| count >= tasks.len()).await.expect("the book is kept");
        (begun, self.book.ran.lock().expect("no task panics").clone())
    }

    async fn stop(self) {
        let stops = self.workers.into_iter().map(RunningWorker::stop);
        futures_util::future::join_all(stops).await.into_iter().for_each(|stopped| stopped.expect("it stops"));
    }
}

#[tokio::main]
async fn main() {
    let chosen: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    println!("{:<76} {:>10} {:>10}", "", "measured", "goal");
    if is_chosen("even") {
        even().await;
    }
    if is_chosen("capacity") {
        capacity().await;
    }
    if is_chosen("placement") {
        placement().await;
    }
    if is_chosen("many") {
        many().await;
    }
    if is_chosen("skewed") {
        skewed().await;
    }
    if is_chosen("cost") {
        cost().await;
    }
}

fn row(what: &str, measured: f64, unit: &str, goal: &str) {
    println!("{what:<76} {:>10} {goal:>10}", format!("{measured:.3}{unit}"));
}

fn var(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// This many tasks, spread at random over partitions as their ids would be.
fn spread(tasks: usize, partitions: i32, duration: Duration) -> Vec<(i32, Duration)> {
    let mut random = Random(7);
    (0..tasks).map(|_| (random.below(partitions), duration)).collect()
}

fn by_worker(ran: &[Ran], workers: usize) -> Vec<f64> {
    let mut counts = vec![0.0; workers];
    ran.iter().for_each(|ran| counts[ran.worker] += 1.0);
    counts
}

async fn even() {
    let mut fleet = Fleet::start(16, &[4; 4]).await;
    let (_, ran) = fleet.run(&spread(10_000, 16, Duration::from_millis(10))).await;
    let counts = by_worker(&ran, 4);
    let (sum, squares) = (counts.iter().sum::<f64>(), counts.iter().map(|count| count * count).sum::<f64>());
    row("4 workers, 16 partitions, 10,000 tasks of 10 ms: Jain index", sum * sum / (4.0 * squares), "", ">= 0.99");
    fleet.stop().await;
}

async fn capacity() {
    let mut fleet = Fleet::start(16, &[4, 4, 4, 8]).await;
    let (_, ran) = fleet.run(&spread(10_000, 16, Duration::from_millis(10))).await;
    let counts = by_worker(&ran, 4);
    let ratio = counts[3] / (counts[..3].iter().sum::<f64>() / 3.0);
    row("the same, one with twice the slots: its work, that of others = 1", ratio, "", "1.9 to 2.1");
    fleet.stop().await;
}

async fn placement() {
    let mut fleet = Fleet::start(12, &[4; 3]).await;
    let (mut random, mut worst, mut sum) = (Random(11), 0.0_f64, 0.0);
    const ROUNDS: u32 = 50;
    for _ in 0..ROUNDS {
        let tasks: Vec<_> = (0..12).map(|_| (random.below(12), Duration::from_secs(1))).collect();
        let (begun, ran) = fleet.run(&tasks).await;
        let makespan = makespan(begun, &ran);
        worst = worst.max(makespan);
        sum += makespan;
    }
    row("12 tasks of 1 s, 3 workers of 4 slots, 50 placements: mean makespan", sum / f64::from(ROUNDS), " s", "");
    row("                                                      worst makespan", worst, " s", "<= 1.1 s");
    fleet.stop().await;
}

async fn many() {
    const WORKERS: usize = 40;
    let mut fleet = Fleet::start(12, &[2; WORKERS]).await;
    let (_, ran) = fleet.run(&spread(2_400, 12, Duration::from_millis(250))).await;
    // Records are ready until the last one has started.
    let (first, last) = (ran.iter().map(|ran| ran.started).min(), ran.iter().map(|ran| ran.started).max());
    let (first, last) = (first.expect("tasks ran"), last.expect("tasks ran"));
    let mut busy = vec![Duration::ZERO; WORKERS];
    for ran in &ran {
        busy[ran.worker] += ran.ended.min(last).saturating_duration_since(ran.started);
    }
    let share = |busy: &Duration| busy.as_secs_f64() / (2.0 * (last - first).as_secs_f64());
    let mean = busy.iter().map(share).sum::<f64>() / WORKERS as f64;
    let least = busy.iter().map(share).fold(1.0, f64::min);
    row("40 workers of 2 slots, 12 partitions, 250 ms: slots busy while ready", 100.0 * mean, " %", "");
    row("                                              least busy worker", 100.0 * least, " %", "not idle");
    row(
        "   longest time without any task on one worker, while others had some ready",
        1_000.0 * longest_idle(&ran, WORKERS),
        " ms",
        "",
    );
    fleet.stop().await;
}

async fn skewed() {
    const ROUNDS: usize = 5;
    let mut fleet = Fleet::start(12, &[4; 4]).await;
    let mut random = Random(13);
    // The mean is 100 ms.
    let mut task = || {
        let partition = if random.below(10) > 0 { 0 } else { 1 + random.below(11) };
        (partition, Duration::from_secs_f64(0.1 * (1.5 * random.normal() - 1.125).exp()))
    };
    let tasks: Vec<_> = (0..1_000).map(|_| task()).collect();
    let (mut makespans, mut p99s, mut idle, mut ideal) = (Vec::new(), Vec::new(), 0.0_f64, 0.0);
    for _ in 0..ROUNDS {
        let (begun, mut ran) = fleet.run(&tasks).await;
        ran.sort_by_key(|ran| ran.number);
        let durations: Vec<f64> = ran.iter().map(|ran| (ran.ended - ran.started).as_secs_f64()).collect();
        let (ideal_makespan, ideal_delays) = shared_queue(&durations, 16);
        let delays = ran.iter().map(|ran| (ran.started - begun).as_secs_f64()).collect();
        makespans.push(makespan(begun, &ran) / ideal_makespan);
        p99s.push(percentile_99(delays) / percentile_99(ideal_delays));
        idle = idle.max(longest_idle(&ran, 4));
        ideal = ideal_makespan;
    }
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let (makespans, p99s) = (sorted(makespans), sorted(p99s));
    row("90 % on one partition, log-normal, 4 workers: one shared queue (computed)", ideal, " s", "");
    row("   makespan, shared queue = 1: median of 5 runs", makespans[ROUNDS / 2], "", "<= 1.05");
    row("                               worst", makespans[ROUNDS - 1], "", "");
    row("   p99 of the queueing delay, shared queue = 1: median", p99s[ROUNDS / 2], "", "<= 1.2");
    row("                               worst", p99s[ROUNDS - 1], "", "");
    row(
        "   longest time without any task on one worker, while others had some ready",
        1_000.0 * idle,
        " ms",
        "<= 100 ms",
    );
    fleet.stop().await;
}

/// What a worker costs that has more records than slots, while nobody is idle: its searches for slots.
async fn cost() {
    let redis =
        Redis::new(Config::from_url(&var("YADTQ_REDIS", "redis://localhost:6379")).expect("a URL"), None, None, None);
    redis.init().await.expect("redis answers");
    let hash: String = redis.script_load(TAKE_SLOTS).await.expect("loaded");
    let idle = format!("bench-{}:idle:{{default}}", &TaskId::new().as_str()[24..]);
    let keys: Vec<String> = ["", ":slots", ":sets", ":waiting"].map(|part| format!("{idle}{part}")).to_vec();
    let args: Vec<String> = ["w", "1000", "64", "4096", "nap", "256"].map(str::to_owned).to_vec();
    const CALLS: u32 = 2_000;
    let begun = Instant::now();
    for _ in 0..CALLS {
        let _: Value = redis.evalsha(&hash, keys.clone(), args.clone()).await.expect("taken");
    }
    let call = begun.elapsed().as_secs_f64() / f64::from(CALLS);
    row("one search that finds nothing, with its round trip", call * 1_000.0, " ms", "");
    row(
        "   of the time of a saturated worker (computed, 4 a second)",
        100.0 * call * SEARCHES_PER_SECOND,
        " %",
        "< 1 %",
    );
}

/// Seconds from the begin until all have ended.
fn makespan(begun: Instant, ran: &[Ran]) -> f64 {
    ran.iter().map(|ran| ran.ended).max().map_or(0.0, |last| (last - begun).as_secs_f64())
}

/// The longest time in seconds in which a worker ran nothing although tasks waited: until the last one had started.
fn longest_idle(ran: &[Ran], workers: usize) -> f64 {
    let (first, last) = (ran.iter().map(|ran| ran.started).min(), ran.iter().map(|ran| ran.started).max());
    let (first, last) = (first.expect("tasks ran"), last.expect("tasks ran"));
    let longest = |worker| {
        let mut own: Vec<_> = ran.iter().filter(|ran| ran.worker == worker).collect();
        own.sort_by_key(|ran| ran.started);
        let (mut busy_until, mut longest) = (first, Duration::ZERO);
        for ran in own {
            longest = longest.max(ran.started.saturating_duration_since(busy_until));
            busy_until = busy_until.max(ran.ended);
        }
        longest.max(last.saturating_duration_since(busy_until)).as_secs_f64()
    };
    (0..workers).map(longest).fold(0.0, f64::max)
}

/// Tasks that all wait from the start, and start in their order wherever a slot is free: makespan, and the delay of each.
fn shared_queue(durations: &[f64], slots: usize) -> (f64, Vec<f64>) {
    let mut free: BinaryHeap<Reverse<Duration>> = (0..slots).map(|_| Reverse(Duration::ZERO)).collect();
    let mut delays = Vec::new();
    for &duration in durations {
        let Reverse(at) = free.pop().expect("there are slots");
        delays.push(at.as_secs_f64());
        free.push(Reverse(at + Duration::from_secs_f64(duration)));
    }
    let last = free.into_iter().map(|Reverse(at)| at).max().unwrap_or_default();
    (last.as_secs_f64(), delays)
}

fn percentile_99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * 99 / 100]
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: i32) -> i32 {
        let end = u64::from(end.unsigned_abs());
        i32::try_from(self.next() % end).expect("it is below the end")
    }

    fn uniform(&mut self) -> f64 {
        (self.next() as f64 + 1.0) / (f64::from(1_u32 << 31) + 1.0)
    }

    /// Normally distributed, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
