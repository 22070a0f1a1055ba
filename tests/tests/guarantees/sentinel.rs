//! A master of Redis is killed, and Sentinel lets a replica take its place.

use std::{collections::BTreeMap, time::Duration};

use redis::aio::MultiplexedConnection;
use yadtq_tests::{servers::Redis, tasks, until};

use super::Bench;

const WAIT: Duration = Duration::from_secs(60);
const RUNNING: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_of_redis_loses_no_task_and_ends_each_once() {
    let mut master = Redis::start(&[]);
    let port = master.port().to_string();
    let replicas =
        [(); 2].map(|()| Redis::start(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]));
    let mut redis = connect(&master.url()).await;
    until("replicas", async || info(&mut redis, "replication", "connected_slaves:2").await).await;
    let sentinels = [(); 3].map(|()| Redis::start_sentinel(master.port()));
    for sentinel in &sentinels {
        let mut sentinel = connect(&sentinel.url().replace("redis://", "redis://:watched@")).await;
        until("sentinels that know of all", async || {
            info(&mut sentinel, "sentinel", "status=ok,address=127.0.0.1:").await?;
            info(&mut sentinel, "sentinel", "slaves=2,sentinels=3").await
        })
        .await;
    }
    let [first, others @ ..] = sentinels.each_ref().map(|sentinel| format!("127.0.0.1:{}", sentinel.port()));
    let [second, third] = others;
    let url = format!(
        "redis-sentinel://{first}?sentinelServiceName=yadtq&sentinelPassword=watched&node={second}&node={third}"
    );
    let mut bench = Bench::on("sentinel", &url).await;
    // Leases that outlast a failover on a slow machine.
    bench.env = bench.env.with("TEST_LEASE_MS", "30000");
    let workers = [bench.ready_worker().await, bench.ready_worker().await];

    let before = bench.client.send_many((0..100).map(|n| tasks::add.call(n, 1))).await;
    let before: Vec<_> = before.into_iter().map(|sent| sent.expect("acknowledged")).collect();
    for (n, handle) in (0..).zip(&before) {
        assert_eq!(handle.wait(WAIT).await.expect("it runs"), n + 1);
    }
    let running = bench.client.send_many((0..RUNNING).map(|_| tasks::nap.call(4_000))).await;
    let running: Vec<_> = running.into_iter().map(|sent| sent.expect("acknowledged")).collect();
    let count = |event: &str| workers.iter().map(|worker| worker.events(event).len()).sum::<usize>();
    until("all run", async || (count("task_started") == before.len() + RUNNING).then_some(())).await;
    // What a replica has not received yet would be lost: then a task may run twice.
    until("replicas that have received all", async || {
        let acknowledged: u32 = redis::cmd("WAIT").arg(2).arg(100).query_async(&mut redis).await.expect("an answer");
        (acknowledged == 2).then_some(())
    })
    .await;
    master.stop();

    for worker in &workers {
        worker.event("backend_disconnected", |_| true).await;
    }
    let meanwhile = bench.client.send_many((0..100).map(|n| tasks::add.call(n, 2))).await;
    let meanwhile: Vec<_> = meanwhile.into_iter().map(|sent| sent.expect("kafka acknowledges")).collect();
    for handle in &running {
        assert_eq!(handle.wait(WAIT).await.expect("its result was held"), 4_000);
    }
    for (n, handle) in (0..).zip(&meanwhile) {
        assert_eq!(handle.wait(WAIT).await.expect("it runs"), n + 2);
    }
    let mut promoted = Vec::new();
    for replica in &replicas {
        let mut redis = connect(&replica.url()).await;
        promoted.extend(info(&mut redis, "replication", "role:master").await);
    }
    assert_eq!(promoted.len(), 1, "one has taken its place");

    let ids = before.iter().chain(&meanwhile).map(|handle| handle.id().to_string());
    let ids = ids.chain(running.iter().map(|handle| handle.id().to_string()));
    let mut ends: BTreeMap<String, (usize, usize)> = ids.map(|id| (id, (0, 0))).collect();
    for worker in &workers {
        for event in worker.events("task_started") {
            ends.get_mut(event["task_id"].as_str().expect("an id")).expect("a task of this test").0 += 1;
        }
        for event in worker.events("task_succeeded") {
            ends.get_mut(event["task_id"].as_str().expect("an id")).expect("a task of this test").1 += 1;
        }
    }
    for (id, ends) in ends {
        assert_eq!(ends, (1, 1), "{id} ran once and ended once");
    }
}

async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    until("redis answers", async || client.get_multiplexed_async_connection().await.ok()).await
}

/// Whether the server says this of itself.
async fn info(redis: &mut MultiplexedConnection, section: &str, text: &str) -> Option<()> {
    let info: String = redis::cmd("INFO").arg(section).query_async(redis).await.ok()?;
    info.contains(text).then_some(())
}
