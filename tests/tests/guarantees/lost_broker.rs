//! One of three brokers is killed: the one that keeps the offsets of the workers.

use std::time::Duration;

use yadtq::Client;
use yadtq_tests::{brokers::Brokers, namespace, process::Env, servers, tasks, until};

use super::{
    book::{Book, Checked, calls, check},
    delays::{assert_once, lateness, spread},
    worker_with,
};

const WAIT: Duration = Duration::from_secs(60);
const KEYS: u32 = 20;
const EACH: u32 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_loses_nothing_and_commits_go_on() {
    let mut brokers = Brokers::start();
    let namespace = namespace("coordinator");
    let client = Client::builder().kafka(brokers.addresses()).redis(servers::redis()).namespace(&namespace);
    let client = client.send_timeout(WAIT).build().await.expect("a client");
    let directory = tempfile::tempdir().expect("a directory");
    let book = Book(directory.path().join("book"));
    let env = Env::new(&brokers.addresses(), &servers::redis(), &namespace);
    let env = env.with("TEST_RECORD", book.0.to_str().expect("UTF-8"));
    let workers = [worker_with(&env), worker_with(&env)];
    for worker in &workers {
        worker.event("partitions_assigned", |event| event["queue"] == "default").await;
        worker.event("scheduler_ready", |_| true).await;
    }
    let ordered = client.send_many(calls(KEYS, EACH)).await;
    // Due before, during and after the failover; each fails once and is sent again.
    let delayed = client.send_many(spread(200, 100, 40)).await;
    let retried = client.send_many((0..100).map(|_| tasks::flaky.call(1))).await;
    book.until_ended(300).await;

    let coordinator = brokers.leader_of("__consumer_offsets");
    let killed = std::time::Instant::now();
    brokers.kill(coordinator);
    let meanwhile = client.send_many((1..=200).map(|i| tasks::nap.call(i % 9))).await;
    println!("200 more tasks were acknowledged after {:?}", killed.elapsed());
    for handle in meanwhile {
        handle.expect("two brokers acknowledge").wait(WAIT).await.expect("it runs");
    }
    for handle in ordered {
        handle.expect("acknowledged").wait(WAIT).await.expect("it runs");
    }
    for handle in retried {
        assert_eq!(handle.expect("acknowledged").wait(WAIT).await.expect("its second attempt").0, 2);
    }
    let late = lateness(delayed).await;
    println!("all had ended after {:?}; the latest delayed task ran {:?} ms late", killed.elapsed(), late.iter().max());
    until("a new coordinator has all commits", async || {
        let queues = client.admin().queues().await.ok()?;
        (!queues.is_empty() && queues.iter().all(|queue| queue.lag == 0)).then_some(())
    })
    .await;
    println!("all was committed after {:?}", killed.elapsed());
    assert_ne!(brokers.leader_of("__consumer_offsets"), coordinator, "another one");

    brokers.start_again(coordinator);
    let last = client.send_many((1..=100).map(|i| tasks::nap.call(i % 9))).await;
    for handle in last {
        handle.expect("acknowledged").wait(WAIT).await.expect("it runs");
    }
    let checked = check(&book.lines(), KEYS, EACH);
    assert_eq!(
        checked,
        Checked { retried_elsewhere: checked.retried_elsewhere, ..Checked::default() },
        "each ran once"
    );
    assert_once(&workers, (KEYS * EACH) as usize + 200 + 100 + 200 + 100);
}
