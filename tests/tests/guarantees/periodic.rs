//! Every tick runs exactly once: with several workers, despite a killed worker, and if only some workers declare it. Missed
//! ticks are skipped or run once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use redis::AsyncCommands as _;
use rustix::process::Signal;
use yadtq::Status;
use yadtq_tests::{ms, servers, until};

use super::{Bench, worker_with};

/// The time in ms since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "the workers are processes, which read the same clock")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500 million")
}

/// What the workers have written.
struct Noted(PathBuf);

impl Noted {
    /// How often each tick of this name ran, by its time in seconds.
    fn runs(&self, name: &str) -> BTreeMap<u64, usize> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let mut runs = BTreeMap::new();
        for id in text.lines() {
            if let Some(time) = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('@')) {
                let time = humantime::parse_rfc3339(time).expect("a time");
                let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
                *runs.entry(since.as_secs()).or_default() += 1;
            }
        }
        runs
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tick_runs_once_while_a_worker_that_declares_it_is_up() {
    let bench = Bench::new("periodic").await;
    let directory = tempfile::tempdir().expect("a directory");
    let noted = Noted(directory.path().join("runs"));
    let env = bench.env.clone().with("TEST_RECORD", noted.0.to_str().expect("UTF-8"));
    let declaring = env.clone().with("TEST_PERIODIC", "beat run-once 1");
    let mut killed = worker_with(&declaring);
    let mut other = worker_with(&declaring);
    let mut neither = worker_with(&env);
    for worker in [&killed, &other, &neither] {
        worker.event("worker_connected", |_| true).await;
    }
    other.event("tick_sent", |_| true).await;
    until("some ticks have run", async || (noted.runs("beat").len() >= 4).then_some(())).await;
    let sent = killed.events("tick_sent").len();
    killed.kill().await;
    let death = now() / 1_000;
    // Even ticks whose worker died before it could run them: its partitions move within 8 s.
    let until_s = death + 10;
    let runs = until("all ticks have run", async || {
        let runs = noted.runs("beat");
        let first = *runs.keys().next()?;
        (first..=until_s).all(|tick| runs.contains_key(&tick)).then_some(runs)
    })
    .await;
    for worker in [&mut other, &mut neither] {
        worker.signal(Signal::TERM);
        assert!(worker.end().await, "it ends well");
    }
    println!("{} ticks; {sent} sent by the killed one, {} by the other", runs.len(), other.events("tick_sent").len());
    assert!(neither.events("tick_sent").is_empty() && !neither.events("task_started").is_empty(), "it ran some");
    for (tick, times) in noted.runs("beat") {
        let time = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(tick));
        let id = format!("beat@{time}").parse().expect("an id");
        let info = bench.client.admin().task(&id).await.expect("an answer").expect("a record");
        assert_eq!(info.status, Status::Success, "{id}");
        // The killed worker may have died after it wrote its note and before it completed the task.
        assert!(times == 1 || times == 1 + info.deliveries as usize, "{id} ran {times} times: {info:?}");
    }
    let listed = bench.client.admin().periodics().await.expect("redis answers");
    assert_eq!((listed.len(), &*listed[0].name, &*listed[0].schedule), (1, "beat", "every 1s"));
    assert!(listed[0].last.map(ms) >= Some(until_s * 1_000), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_ticks_are_skipped_or_run_once() {
    const EVERY: u64 = 3;
    let bench = Bench::new("missed").await;
    let directory = tempfile::tempdir().expect("a directory");
    let noted = Noted(directory.path().join("runs"));
    let env = bench.env.clone().with("TEST_RECORD", noted.0.to_str().expect("UTF-8"));
    let env = env.with("TEST_PERIODIC", "once run-once 3,skip skip 3,lost run-once 3");
    let names = ["once", "skip", "lost"];
    let mut worker = worker_with(&env);
    until("each has run", async || names.iter().all(|name| !noted.runs(name).is_empty()).then_some(())).await;
    worker.signal(Signal::TERM);
    assert!(worker.end().await, "it ends well");
    let before = bench.client.admin().periodics().await.expect("redis answers");
    let last = before.iter().map(|periodic| ms(periodic.last.expect("it has run")) / 1_000).collect::<Vec<_>>();
    // Redis forgets one of the two: its missed ticks are unknown, and no old tick may run.
    let forgotten: u64 =
        bench.redis().await.del(format!("{}:tick:{{lost}}", bench.namespace)).await.expect("redis answers");
    assert_eq!(forgotten, 1);
    // Start two ticks later, shortly after a tick, so that the worker is ready well before the next one.
    let newest = *last.iter().max().expect("three") * 1_000;
    until("ticks have passed", async || {
        let now = now();
        (now > newest + 3 * EVERY * 1_000 && (100..500).contains(&(now % (EVERY * 1_000)))).then_some(())
    })
    .await;
    let begun = now() / 1_000;
    let missed = begun - begun % EVERY;
    let mut worker = worker_with(&env);
    until("each has run again", async || {
        names.iter().all(|name| noted.runs(name).keys().any(|&tick| tick >= missed + 2 * EVERY)).then_some(())
    })
    .await;
    worker.signal(Signal::TERM);
    assert!(worker.end().await, "it ends well");
    for (periodic, last) in before.iter().zip(last) {
        let runs = noted.runs(&periodic.name);
        let made_up: Vec<_> = runs.keys().filter(|&&tick| tick > last && tick <= missed).copied().collect();
        let expected = if periodic.name == "once" { vec![missed] } else { vec![] };
        assert_eq!(made_up, expected, "{}: {last} to {missed}: {runs:?}", periodic.name);
        assert!(runs.contains_key(&(missed + EVERY)), "{}: {runs:?}", periodic.name);
        assert!(runs.values().all(|&times| times == 1), "{}: {runs:?}", periodic.name);
    }
    assert!(!worker.events("ticks_missed").is_empty(), "skipped ticks are reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_of_an_outage_run_afterwards_and_old_ones_not_again() {
    // This Redis keeps nothing on disk: an outage loses everything.
    let mut redis = servers::Redis::start(&[]);
    let bench = Bench::on("tickless", &redis.url()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let noted = Noted(directory.path().join("runs"));
    let env = bench.env.clone().with("TEST_RECORD", noted.0.to_str().expect("UTF-8"));
    let env = env.with("TEST_PERIODIC", "beat run-once 1");
    let workers = [worker_with(&env), worker_with(&env)];
    until("some ticks have run", async || (noted.runs("beat").len() >= 3).then_some(())).await;
    redis.stop();
    let lost = now() / 1_000;
    // Wait by the wall clock, because ticks follow it.
    until("ticks have passed", async || (now() / 1_000 > lost + 5).then_some(())).await;
    redis.start_again();
    let back = now() / 1_000;
    let runs = until("all ticks have run", async || {
        let runs = noted.runs("beat");
        let first = *runs.keys().next()?;
        (first..=back + 5).all(|tick| runs.contains_key(&tick)).then_some(runs)
    })
    .await;
    let sent: usize = workers.iter().map(|worker| worker.events("tick_sent").len()).sum();
    println!("{} ticks in {sent} records: {runs:?}", runs.len());
    // Redis no longer knows about ticks that ran at that very moment.
    for (tick, times) in noted.runs("beat") {
        let at_the_moment = (lost.saturating_sub(2)..=lost).contains(&tick);
        assert!(times == 1 || at_the_moment, "{tick} ran {times} times; lost at {lost}, back at {back}");
    }
    let listed = bench.client.admin().periodics().await.expect("redis answers");
    assert!(listed[0].last.map(ms) >= Some(back * 1_000), "the workers have recorded it again: {listed:?}");
}
