//! Redis answers, and takes no writes.

use std::time::Duration;

use yadtq_tests::{
    servers::{Redis, free_port},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(30);
const LEASE_MS: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_is_waited_for_as_for_one_that_is_away() {
    let server = Redis::start(&[]);
    let bench = Bench::on("refused", &server.url()).await;
    let env = bench.env.clone().with("TEST_LEASE_MS", &LEASE_MS.to_string());
    let workers = [worker_with(&env), worker_with(&env)];
    for worker in &workers {
        worker.event("partitions_assigned", |_| true).await;
    }
    let mut redis = bench.redis().await;
    let nowhere = format!("REPLICAOF 127.0.0.1 {}", free_port());
    let causes = [
        ("OOM", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("NOREPLICAS", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("READONLY", &nowhere, "REPLICAOF NO ONE"),
    ];
    let mut sent = Vec::new();
    for (code, breaks, fixes) in causes {
        let running = tasks::nap.call(1_500).send(&bench.client).await.expect("acknowledged");
        until("it runs", async || {
            let started = workers.iter().flat_map(|worker| worker.events("task_started"));
            started.into_iter().any(|event| event["task_id"] == running.id().as_str()).then_some(())
        })
        .await;
        command(&mut redis, breaks).await;
        for worker in &workers {
            let is_it = |text: Option<&str>| text.is_some_and(|text| text.contains(code));
            let event = worker.event("backend_refuses_writes", |event| is_it(event["error"].as_str())).await;
            assert_eq!(event["level"], "ERROR");
        }
        let meanwhile = tasks::add.call(20, 3).send(&bench.client).await.expect("kafka acknowledges");
        until("all leases and heartbeats are long over", async || {
            let lease_until: u64 = redis::cmd("HGET")
                .arg(bench.key(running.id()))
                .arg("lease-until")
                .query_async(&mut redis)
                .await
                .expect("it is not recorded as ended");
            let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.expect("the time");
            (seconds * 1_000 > lease_until + 3 * LEASE_MS).then_some(())
        })
        .await;
        command(&mut redis, fixes).await;
        assert_eq!(running.wait(WAIT).await.expect("its result was held"), 1_500, "{code}");
        assert_eq!(meanwhile.wait(WAIT).await.expect("it runs"), 23, "{code}");
        sent.extend([running.id().clone(), meanwhile.id().clone()]);
    }
    for worker in &workers {
        let codes = worker.events("backend_refuses_writes").len();
        assert_eq!(codes, causes.len(), "one event for each cause: {:#?}", worker.events("backend_refuses_writes"));
        for unwanted in ["worker_lost", "worker_declared_dead", "lease_lost", "outcome_stale", "hand_back_failed"] {
            assert!(worker.events(unwanted).is_empty(), "{unwanted}: {:#?}", worker.events(unwanted));
        }
    }
    let started: Vec<_> = workers.iter().flat_map(|worker| worker.events("task_started")).collect();
    for id in sent {
        assert_eq!(started.iter().filter(|event| event["task_id"] == id.as_str()).count(), 1, "{id} ran once");
    }
}

async fn command(redis: &mut redis::aio::MultiplexedConnection, words: &str) {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().expect("a command"));
    for word in words {
        command.arg(word);
    }
    let () = command.query_async(redis).await.expect("it is done");
}
