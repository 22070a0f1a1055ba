//! The mixed soak: all features at once, while workers die. Then an oracle checks that every task ended exactly once, and as
//! it should. The test is alone in its binary, because it needs the whole machine.
//!
//! `YADTQ_SOAK` is the duration of the load (1 minute), `YADTQ_SOAK_SEED` repeats the load of an earlier soak,
//! `YADTQ_SOAK_RATE` is the number of tasks per second.

mod fleet;
mod hostile;
mod ledger;
mod limits;
mod load;
mod oracle;
mod order;
mod pauses;
mod scenes;
mod summary;

use std::{
    collections::HashSet,
    future::Future,
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use tokio::task::JoinSet;
use yadtq::{Client, TaskId, admin::Admin};
use yadtq_tests::{
    TEST_TIMEOUT, ms, namespace, now_ms,
    process::Env,
    servers::{self, Redis},
    soak::Soak,
    until,
};

use fleet::Fleet;
use hostile::{Hostile, Source};
use ledger::Outcome;
use load::Load;
use oracle::{Ends, Evidence, Known};

/// Interval at which tasks are sent.
const SEND_INTERVAL: Duration = Duration::from_millis(100);
/// Interval at which the soak reports its progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time for the last tasks to end. It is far more than necessary.
const END_TIMEOUT: Duration = Duration::from_secs(180);
/// If the load takes at least this long, Redis is restarted half way.
const REDIS_RESTART_FROM: Duration = Duration::from_secs(300);
/// Interval at which more tasks are sent at once than the limits allow.
const BURST_INTERVAL: Duration = Duration::from_secs(6);
/// Page size for delayed tasks: more than are left at the end.
const DELAYED_LIMIT: usize = 100_000;
/// Number of concurrent requests to Redis.
const REDIS_CONCURRENCY: usize = 32;

/// The plan that the environment describes.
struct Plan {
    time: Duration,
    seed: u64,
    rate: u64,
}

impl Plan {
    fn from_env() -> Self {
        let time = std::env::var("YADTQ_SOAK").unwrap_or_else(|_| "1m".to_owned());
        let time = humantime::parse_duration(&time).unwrap_or_else(|e| panic!("YADTQ_SOAK is `{time}`: {e}"));
        Self {
            time,
            seed: number("YADTQ_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..)),
            rate: number("YADTQ_SOAK_RATE").unwrap_or(120),
        }
    }
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once_ends_exactly_once() {
    let plan = Plan::from_env();
    println!("soaks for {:?} at {} tasks/s; YADTQ_SOAK_SEED={}", plan.time, plan.rate, plan.seed);
    let directory = tempfile::tempdir().expect("a directory");
    let (kafka, namespace) = (servers::kafka(), namespace("soak"));
    let mut own = (plan.time >= REDIS_RESTART_FROM).then(|| Redis::start(&["--appendonly", "yes"]));
    let redis = own.as_ref().map_or_else(servers::redis, Redis::url);
    let client = Client::builder().kafka(&kafka).redis(&redis).namespace(&namespace);
    let client = client.build().await.expect("a client");
    let path = directory.path().to_str().expect("UTF-8");
    let env = Env::new(&kafka, &redis, &namespace).with("TEST_SOAK", path).with("TEST_DRAIN_MS", "3000");
    let mut fleet = Fleet::start(directory.path(), env.with("RUST_LOG", "warn,yadtq=info"));
    let soak = Soak::open(directory.path()).expect("the journal can be opened");
    let (load, hostile) = (Arc::new(Load::new(client, soak)), Arc::new(Hostile::new(&kafka, &namespace)));

    Arc::clone(&load).run("sum", Rng::with_seed(plan.seed)).await;
    let begun = now_ms();
    let mut senders = send(&plan, &load, &hostile, &mut fleet, own.as_mut()).await;
    let ended = now_ms();
    println!("all is sent; waits for its end");
    if within(END_TIMEOUT, async {
        while let Some(sender) = senders.join_next().await {
            sender.expect("it does not panic")
        }
    })
    .await
    .is_none()
    {
        load.ledger.violation(format!("{} senders still wait after {END_TIMEOUT:?}", senders.len()));
    }
    rests(&load).await;
    fleet.stop_all().await;

    let (evidence, sources) = evidence(&load, directory.path(), (begun, ended)).await;
    let found = [load.ledger.violations(), fleet.violations.clone(), evidence.violations()];
    let violations = [found.concat(), hostile.violations(&sources)].concat();
    summary::print(&evidence, &fleet, &violations);
    if !violations.is_empty() {
        println!("journal and logs are kept in {}", directory.keep().display());
    }
    assert!(violations.is_empty(), "{} violations; see above", violations.len());
}

async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}

/// Sends for the planned time, and meanwhile kills workers, replays dead letters and restarts Redis.
async fn send(
    plan: &Plan, load: &Arc<Load>, hostile: &Arc<Hostile>, fleet: &mut Fleet, mut redis: Option<&mut Redis>,
) -> JoinSet<()> {
    let (mut rng, mut senders, start) = (Rng::with_seed(plan.seed), JoinSet::new(), Instant::now());
    let (mut strikes, mut next_report, mut sent) = (fleet::strikes().peekable(), REPORT_INTERVAL, 0);
    let (mut replay, mut restart) = (Some(plan.time * 6 / 10), plan.time / 2);
    let (mut controls, mut burst) = (Some(plan.time / 5), BURST_INTERVAL);
    let mut steps = tokio::time::interval(SEND_INTERVAL);
    while start.elapsed() < plan.time {
        steps.tick().await;
        let elapsed = start.elapsed();
        let due = u64::try_from(elapsed.as_millis()).expect("short") * plan.rate / 1_000;
        for _ in sent..due {
            senders.spawn(Arc::clone(load).run(load::any(&mut rng), rng.fork()));
        }
        sent = due;
        while let Some(sender) = senders.try_join_next() {
            sender.expect("it does not panic");
        }
        if strikes.next_if(|at| elapsed >= *at).is_some() {
            println!("{elapsed:.1?}: {}", fleet.strike(&mut rng).await);
        }
        if replay.take_if(|at| elapsed >= *at).is_some() {
            senders.spawn(Arc::clone(load).replay());
        }
        if controls.take_if(|at| elapsed >= *at).is_some() {
            senders.spawn(Arc::clone(load).controls());
        }
        if elapsed >= burst {
            senders.spawn(Arc::clone(load).paced());
            senders.spawn(Arc::clone(load).few(rng.fork()));
            senders.spawn(Arc::clone(hostile).burst());
            burst += BURST_INTERVAL;
        }
        if elapsed >= restart
            && let Some(redis) = redis.take()
        {
            redis.stop();
            redis.start_again();
            println!("{elapsed:.1?}: redis was restarted");
            restart = Duration::MAX;
        }
        if elapsed >= next_report {
            fleet.look();
            let (sent, ended) = load.ledger.count();
            println!("{elapsed:.1?} of {:?}: {sent} sent, {ended} ended", plan.time);
            next_report += REPORT_INTERVAL;
        }
    }
    senders
}

/// Waits until the queues and the delayed tasks are empty, except for a tick that is sent at that moment. Prints how many
/// records of revoked tasks still wait there: a task that was revoked while its worker published its retry is removed only
/// when it is due.
async fn rests(load: &Load) {
    let admin = load.client.admin();
    let start = Instant::now();
    let (mut lag, mut waiting, mut revoked) = (u64::MAX, Vec::new(), None);
    while start.elapsed() < TEST_TIMEOUT && (lag > 0 || revoked.is_none()) {
        if let Ok(queues) = admin.queues().await {
            lag = queues.iter().map(|queue| queue.lag).sum();
        }
        if let Ok(scheduled) = admin.scheduled(DELAYED_LIMIT).await {
            let is_revoked = |id: &TaskId| load.ledger.outcome(id) == Some(Outcome::Revoked);
            let all = scheduled.tasks.len();
            waiting = scheduled.tasks;
            waiting.retain(|task| !is_revoked(&task.id));
            revoked = waiting.is_empty().then_some(all);
        }
        tokio::time::sleep(SEND_INTERVAL).await;
    }
    println!("{} records of revoked tasks wait for their time", revoked.unwrap_or(0));
    if lag > 0 || revoked.is_none() {
        let queues = admin.queues().await;
        load.ledger.violation(format!("after the end, {queues:?} and {waiting:?} are left"));
    }
}

async fn evidence(load: &Load, directory: &Path, time: (u64, u64)) -> (Evidence, HashSet<Source>) {
    let entries = load.ledger.entries();
    let admin = &load.client.admin();
    let known = |id: TaskId| async move { Some((id.clone(), known(admin, &id).await?)) };
    let ids = entries.keys().cloned().chain(oracle::ticks(time));
    let known =
        stream::iter(ids).map(known).buffer_unordered(REDIS_CONCURRENCY).filter_map(std::future::ready).collect().await;
    let (mut letters, mut sources) = (HashSet::new(), HashSet::new());
    let mut walk = admin.dead_letters().walk().await.expect("kafka answers");
    while let Some(letter) = walk.next().await.expect("kafka answers") {
        let source = letter.source_topic.zip(letter.source);
        sources.extend(source.map(|(topic, place)| (topic, place.partition, place.offset)));
        letters.extend(letter.id);
    }
    let notes = load.soak.notes().expect("the journal can be read");
    (Evidence { entries, known, notes, ends: Ends::read(directory), letters, time }, sources)
}

async fn known(admin: &Admin, id: &TaskId) -> Option<Known> {
    let info = until("redis answers", async || admin.task(id).await.ok()).await?;
    Some(Known {
        time: info.queued_at.map(ms).zip(info.finished_at.map(ms)),
        text: format!("{info:?}"),
        status: info.status.to_string(),
    })
}
