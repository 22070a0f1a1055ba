//! Tasks that report progress: values arrive in order, without a flood, and again after an outage of a worker or Redis.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use tokio::time::timeout;
use yadtq::{Error, ProgressStream, Status};
use yadtq_tests::{TEST_TIMEOUT, servers::Redis, tasks, until};

use super::Bench;

async fn next(stream: &mut ProgressStream<u64>) -> u64 {
    let value = timeout(TEST_TIMEOUT, stream.next()).await.expect("a value in time");
    value.expect("the task runs").expect("a number")
}

/// Skips values until one fits.
async fn seek(stream: &mut ProgressStream<u64>, fits: impl Fn(u64) -> bool) -> u64 {
    loop {
        let value = next(stream).await;
        if fits(value) {
            return value;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_in_order_until_the_task_ends() {
    let bench = Bench::new("progress").await;
    let worker = bench.ready_worker().await;
    let handle = tasks::count.call(100, 20).send(&bench.client).await.expect("acknowledged");
    let mut stream = handle.progress::<u64>();
    let first = next(&mut stream).await;
    let shown = bench.client.admin().task(handle.id()).await.expect("an answer").expect("a record");
    let shown: u64 = shown.progress.expect("progress is reported").get().parse().expect("a number");
    assert!(shown >= first, "{shown} after {first}");

    // A process that knows only the id, and starts to listen late.
    let other = yadtq::Client::builder().kafka(yadtq_tests::servers::kafka()).redis(&bench.redis);
    let other = other.namespace(&bench.namespace).build().await.expect("a client");
    let by_id = other.handle::<u64>(handle.id().clone());
    let (mut late, mut wrong) = (by_id.progress::<u64>(), by_id.progress::<String>());
    assert!(next(&mut late).await >= first);
    assert!(matches!(wrong.next().await, Some(Err(Error::ProgressType { .. }))));

    let rest = async |stream: ProgressStream<u64>| {
        let values = timeout(TEST_TIMEOUT, stream.try_collect::<Vec<_>>());
        values.await.expect("it ends with the task").expect("numbers")
    };
    let (from_first, from_late) = tokio::join!(rest(stream), rest(late));
    for values in [from_first, from_late] {
        assert!(values.is_sorted_by(|a, b| a < b), "{values:?}");
        assert!(values.len() > 3 && values[values.len() - 1] > 80, "{values:?}");
    }
    assert_eq!(handle.clone().await.expect("a result"), 100);
    assert!(handle.progress::<u64>().next().await.is_none(), "no more progress");
    let ended = bench.client.admin().task(handle.id()).await.expect("an answer").expect("a record");
    assert!(ended.progress.is_none(), "{ended:?}");

    let overdone = tasks::overdo.call().send(&bench.client).await.expect("acknowledged");
    assert_eq!(overdone.await.expect("it does not fail of it"), 1);
    let refused = worker.events("progress_refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0]["error"].as_str().is_some_and(|error| error.contains("more than 4096 bytes")), "{refused:?}");

    let unknown = bench.client.handle::<u64>("nobody".parse().expect("an id"));
    assert!(matches!(unknown.progress::<u64>().next().await, Some(Err(Error::NotFound { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_reports_causes_few_writes() {
    const REPORTS: u64 = 100_000;
    let server = Redis::start(&[]);
    let bench = Bench::on("flood", &server.url()).await;
    let worker = bench.ready_worker().await;
    let mut redis = bench.redis().await;
    // Who connects finds out whether it may publish.
    let (begun, earlier) = (Instant::now(), publishes(&mut redis).await);
    let handle = tasks::flood.call(REPORTS).send(&bench.client).await.expect("acknowledged");
    let mut stream = handle.progress::<u64>();
    seek(&mut stream, |value| value == REPORTS).await;
    let (interval, messages) = (Duration::from_millis(100), publishes(&mut redis).await - earlier);
    let most = begun.elapsed().as_millis() / interval.as_millis() + 2;
    assert!((1..=most).contains(&messages.into()), "{messages} messages in {:?}", begun.elapsed());
    println!("{REPORTS} reports were {messages} messages in {:?}", begun.elapsed());

    handle.revoke().await.expect("an answer");
    assert!(timeout(TEST_TIMEOUT, stream.next()).await.expect("a value in time").is_none());
    assert!(matches!(handle.await, Err(Error::Revoked { .. })));
    // Without a listener, only the messages of the end are published.
    let before = publishes(&mut redis).await;
    let unheard = tasks::flood.call(REPORTS).send(&bench.client).await.expect("acknowledged");
    until("it is written", async || {
        let task = bench.client.admin().task(unheard.id()).await.expect("an answer")?;
        task.progress.filter(|progress| progress.get() == REPORTS.to_string())
    })
    .await;
    assert_eq!(publishes(&mut redis).await, before);
    drop(worker);
}

async fn publishes(redis: &mut redis::aio::MultiplexedConnection) -> u64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(redis).await.expect("stats");
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_continues_after_the_death_of_a_worker() {
    let bench = Bench::new("progresskill").await;
    let mut first = bench.ready_worker().await;
    let handle = tasks::count.call(2_000, 10).send(&bench.client).await.expect("acknowledged");
    let mut stream = handle.progress::<u64>();
    let reached = seek(&mut stream, |value| value > 200).await;
    first.kill().await;
    let second = bench.worker();
    let again = seek(&mut stream, |value| value < reached).await;
    assert!(seek(&mut stream, |value| value > again).await < reached, "the next run reports its own progress");
    assert_eq!(second.events("task_started").len(), 1);
    assert_eq!(handle.status().await.expect("a status"), Status::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_continues_after_redis_lost_everything() {
    let mut server = Redis::start(&[]);
    let bench = Bench::on("progressgone", &server.url()).await;
    let worker = bench.ready_worker().await;
    let handle = tasks::count.call(2_000, 10).send(&bench.client).await.expect("acknowledged");
    let mut stream = handle.progress::<u64>();
    seek(&mut stream, |value| value > 20).await;
    server.stop();
    worker.event("backend_disconnected", |_| true).await;
    server.start_again();
    // Values that were on their way may be lost; later ones arrive.
    let info = async || bench.client.admin().task(handle.id()).await.ok().flatten();
    let now = until("progress is reported again", async || info().await?.progress).await;
    let now: u64 = now.get().parse().expect("a number");
    seek(&mut stream, |value| value > now).await;
    assert_eq!(worker.events("task_started").len(), 1, "the same run");
}
