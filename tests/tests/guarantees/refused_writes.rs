//! Redis answers, and takes no writes.

use std::{collections::BTreeSet, time::Duration};

use redis::aio::MultiplexedConnection;
use yadtq_tests::{
    servers::{Redis, free_port},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(30);
const LEASE_MS: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_is_waited_for_as_for_one_that_is_away() {
    let server = Redis::start(&["--appendonly", "yes"]);
    let bench = Bench::on("refused", &server.url()).await;
    let env = bench.env.clone().with("TEST_LEASE_MS", &LEASE_MS.to_string());
    let workers = [worker_with(&env), worker_with(&env)];
    for worker in &workers {
        worker.event("partitions_assigned", |_| true).await;
    }
    let mut redis = bench.redis().await;
    let mut sent = Vec::new();
    for cause in CAUSES {
        let code = cause.code();
        let running = tasks::nap.call(1_500).send(&bench.client).await.expect("acknowledged");
        until("it runs", async || {
            let started = workers.iter().flat_map(|worker| worker.events("task_started"));
            started.into_iter().any(|event| event["task_id"] == running.id().as_str()).then_some(())
        })
        .await;
        cause.begin(&server, &mut redis).await;
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
        cause.end(&server, &mut redis).await;
        assert_eq!(running.wait(WAIT).await.expect("its result was held"), 1_500, "{cause:?}");
        assert_eq!(meanwhile.wait(WAIT).await.expect("it runs"), 23, "{cause:?}");
        sent.extend([running.id().clone(), meanwhile.id().clone()]);
    }
    for worker in &workers {
        let codes: BTreeSet<_> = CAUSES.iter().map(|cause| cause.code()).collect();
        let events = worker.events("backend_refuses_writes");
        assert_eq!(events.len(), codes.len(), "one event for each code: {events:#?}");
        for unwanted in ["worker_lost", "worker_declared_dead", "lease_lost", "outcome_stale", "hand_back_failed"] {
            assert!(worker.events(unwanted).is_empty(), "{unwanted}: {:#?}", worker.events(unwanted));
        }
    }
    let started: Vec<_> = workers.iter().flat_map(|worker| worker.events("task_started")).collect();
    for id in sent {
        assert_eq!(started.iter().filter(|event| event["task_id"] == id.as_str()).count(), 1, "{id} ran once");
    }
}

/// Why Redis takes no writes.
#[derive(Clone, Copy, Debug)]
enum Cause {
    FullMemory,
    NoReplicas,
    FailingSave,
    #[cfg(target_os = "linux")]
    FullDisk,
    Demotion,
}

const CAUSES: &[Cause] = &[
    Cause::FullMemory,
    Cause::NoReplicas,
    Cause::FailingSave,
    #[cfg(target_os = "linux")]
    Cause::FullDisk,
    Cause::Demotion,
];

impl Cause {
    /// The first word of what Redis answers.
    fn code(self) -> &'static str {
        match self {
            Self::FullMemory => "OOM",
            Self::NoReplicas => "NOREPLICAS",
            Self::FailingSave => "MISCONF",
            #[cfg(target_os = "linux")]
            Self::FullDisk => "MISCONF",
            Self::Demotion => "READONLY",
        }
    }

    async fn begin(self, server: &Redis, redis: &mut MultiplexedConnection) {
        match self {
            Self::FullMemory => command(redis, &["CONFIG", "SET", "maxmemory", "1"]).await,
            Self::NoReplicas => command(redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await,
            Self::FailingSave => {
                // Where the file is to be there is a directory.
                std::fs::create_dir(server.dir().join("dump.rdb")).expect("a directory");
                command(redis, &["CONFIG", "SET", "save", "3600 1"]).await;
                save(redis, "err").await;
            }
            #[cfg(target_os = "linux")]
            Self::FullDisk => server.limit_files(Some(1)),
            Self::Demotion => command(redis, &["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await,
        }
    }

    async fn end(self, server: &Redis, redis: &mut MultiplexedConnection) {
        match self {
            Self::FullMemory => command(redis, &["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::NoReplicas => command(redis, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await,
            Self::FailingSave => {
                std::fs::remove_dir(server.dir().join("dump.rdb")).expect("it is empty");
                save(redis, "ok").await;
                command(redis, &["CONFIG", "SET", "save", ""]).await;
            }
            #[cfg(target_os = "linux")]
            Self::FullDisk => server.limit_files(None),
            Self::Demotion => command(redis, &["REPLICAOF", "NO", "ONE"]).await,
        }
    }
}

/// Lets Redis save its data until that ends as it should.
async fn save(redis: &mut MultiplexedConnection, end: &str) {
    until("saved, or not", async || {
        // It is refused while another one runs.
        let _: redis::RedisResult<()> = redis::cmd("BGSAVE").query_async(redis).await;
        let info: String = redis::cmd("INFO").arg("persistence").query_async(redis).await.expect("an answer");
        info.contains(&format!("rdb_last_bgsave_status:{end}")).then_some(())
    })
    .await;
}

async fn command(redis: &mut MultiplexedConnection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    let () = command.arg(&words[1..]).query_async(redis).await.expect("it is done");
}
