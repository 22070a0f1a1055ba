//! Redis loses all its data, or is away for a while, while tasks run.

use std::{collections::HashSet, time::Duration};

use yadtq_tests::{servers::Redis, tasks};

use super::{
    Bench,
    book::{Book, Checked, calls, check},
    delays::{assert_once, lateness, spread},
    worker_with,
};

const WAIT: Duration = Duration::from_secs(60);
/// How long Redis is away if `YADTQ_TEST_REDIS_AWAY_SECONDS` does not say it: longer than a lease, and than a call may take.
const AWAY_SECONDS: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_loses_no_task() {
    let server = Redis::start(&[]);
    let bench = Bench::on("flush", &server.url()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("runs").display().to_string();
    let mut worker = worker_with(&bench.env.clone().with("TEST_RECORD", &path).with("RUST_LOG", "yadtq=warn"));
    let calls = (0..10_000).map(|i| tasks::add.call(i, 1));
    let handles = bench.client.send_many(calls).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    handles[1_000].clone().await.expect("the work has begun");
    let mut redis = bench.redis().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.expect("emptied");

    for (i, handle) in (0_i64..).zip(&handles) {
        assert_eq!(handle.wait(Duration::from_secs(40)).await.expect("every task completes"), i + 1);
    }
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.end().await, "the worker ends well");
    let runs = std::fs::read_to_string(&path).expect("a record");
    let ids: HashSet<&str> = runs.lines().collect();
    assert_eq!(ids.len(), handles.len(), "every task ran");
    println!("{} tasks ran again after redis had lost them", runs.lines().count() - ids.len());
}

/// With its data: no lease is lost, so nothing runs twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_for_longer_than_a_lease_loses_nothing() {
    const KEYS: u32 = 20;
    const EACH: u32 = 40;
    let seconds = std::env::var("YADTQ_TEST_REDIS_AWAY_SECONDS").ok();
    let seconds = seconds.map_or(AWAY_SECONDS, |text| text.parse().expect("a number of seconds"));
    let mut server = Redis::start(&["--appendonly", "yes"]);
    let bench = Bench::on("away", &server.url()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let book = Book(directory.path().join("book"));
    let env = bench.env.clone().with("TEST_RECORD", book.0.to_str().expect("UTF-8"));
    let workers = [worker_with(&env), worker_with(&env)];
    for worker in &workers {
        worker.event("partitions_assigned", |event| event["queue"] == "default").await;
        worker.event("scheduler_ready", |_| true).await;
    }
    let ordered = bench.client.send_many(calls(KEYS, EACH)).await;
    // Due before, during and after the outage.
    let delayed = bench.client.send_many(spread(200, 100, seconds * 1_500 / 200)).await;
    let long = tasks::nap.call(seconds * 1_000 + 1_000).send(&bench.client).await.expect("acknowledged");
    workers[0].event("task_retrying", |_| true).await;
    book.until_ended(200).await;

    server.stop();
    for worker in &workers {
        worker.event("backend_disconnected", |_| true).await;
    }
    let meanwhile = bench.client.send_many((1..=200).map(|i| tasks::nap.call(i % 9))).await;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let ended = book.ended();
    assert!(ended < (KEYS * EACH) as usize, "all {ended} had ended: the outage was no test");
    server.start_again();

    for handle in meanwhile {
        handle.expect("kafka acknowledged").wait(WAIT).await.expect("it runs");
    }
    for handle in ordered {
        handle.expect("acknowledged").wait(WAIT).await.expect("it runs");
    }
    let late = lateness(delayed).await;
    assert_eq!(long.wait(WAIT).await.expect("its result was held"), seconds * 1_000 + 1_000);
    println!("redis was away for {seconds} s; the latest delayed task ran {:?} ms late", late.iter().max());
    let checked = check(&book.lines(), KEYS, EACH);
    assert_eq!(
        checked,
        Checked { retried_elsewhere: checked.retried_elsewhere, ..Checked::default() },
        "each ran once"
    );
    assert_once(&workers, (KEYS * EACH) as usize + 200 + 200 + 1);
}
