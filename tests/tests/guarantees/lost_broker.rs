//! One of three brokers is killed: the one that keeps the offsets of the workers, or the only one that has some partitions.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use yadtq::{Client, Error};
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
    let killed = Instant::now();
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

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_with_replicas_and_ping_warns_of_those_that_a_broker_can_lose() {
    let brokers = Brokers::start();
    for (replicas, warning) in [(1, "one of the 3 brokers alone"), (2, "min.insync.replicas is 1"), (3, "")] {
        let client = Client::builder().kafka(brokers.addresses()).redis(servers::redis());
        let client = client.namespace(namespace("replicas")).replication(replicas).send_timeout(WAIT);
        let client = client.build().await.expect("a client");
        tasks::add.call(1, 1).send(&client).await.expect("acknowledged");
        let report = client.admin().ping().await.kafka.expect("kafka answers");
        match &report.warnings[..] {
            [] => assert_eq!(replicas, 3),
            [only] => assert!(!warning.is_empty() && only.contains(warning), "{replicas}: {only}"),
            more => panic!("{replicas}: {more:?}"),
        }
    }
}

/// A queue has one replica, and the broker with a third of it is away. What is sent to the others is taken and runs, also by
/// clients and workers that start meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_holds_up_no_other() {
    // So many that a third of the partitions has about a third of them.
    const SENT: i64 = 1_200;
    let mut brokers = Brokers::start();
    let (namespace, addresses) = (namespace("leaderless"), brokers.addresses());
    let client = async || {
        let client = Client::builder().kafka(&addresses).redis(servers::redis()).namespace(&namespace);
        client.replication(1).send_timeout(Duration::from_secs(5)).build().await.expect("a client")
    };
    let env = Env::new(&addresses, &servers::redis(), &namespace);
    let first = client().await;
    tasks::add.call(1, 1).send(&first).await.expect("acknowledged");
    let report = first.admin().ping().await.kafka.expect("kafka answers");
    let warns = |warnings: &[String]| warnings.iter().any(|warning| warning.contains("one of the 3 brokers alone"));
    assert!(warns(&report.warnings), "{:?}", report.warnings);
    let old = worker_with(&env);
    old.event("partitions_assigned", |event| event["queue"] == "default").await;
    old.event("scheduler_ready", |_| true).await;
    old.event("broker_warning", |event| event["message"].as_str().is_some_and(|text| warns(&[text.to_owned()]))).await;

    let lost = brokers.leader_of(&format!("{namespace}.default"));
    brokers.kill(lost);
    let second = client().await;
    let begun = Instant::now();
    let new = worker_with(&env);
    let sends = (0..SENT).map(async |n| {
        let handle = tasks::add.call(n, 1).send(&second).await;
        let Ok(handle) = handle else { return (n, handle.map(drop)) };
        assert_eq!(handle.wait(WAIT).await.expect("it runs"), n + 1);
        (n, Ok(()))
    });
    let sent = join_all(sends).await;
    let (taken, refused): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, sent)| sent.is_ok());
    println!("{} of {SENT} taken and ended, all after {:?}", taken.len(), begun.elapsed());
    assert!(taken.len() * 2 > refused.len() * 3, "{} taken, {} refused", taken.len(), refused.len());
    for (_, refused) in &refused {
        assert!(matches!(refused, Err(Error::Unacknowledged { .. })), "{refused:?}");
    }
    new.event("worker_connected", |_| true).await;
    new.event("partitions_assigned", |event| event["queue"] == "default").await;
    new.event("scheduler_ready", |_| true).await;
    let queues = second.admin().queues().await.expect("the others can be read");
    assert_eq!((queues.len(), queues[0].partitions), (1, 12), "{queues:?}");
    assert!((1..6).contains(&queues[0].leaderless), "{queues:?}");

    brokers.start_again(lost);
    for (n, _) in refused {
        let again = until("it is back", async || tasks::add.call(n, 1).send(&second).await.ok()).await;
        assert_eq!(again.wait(WAIT).await.expect("it runs"), n + 1);
    }
}
