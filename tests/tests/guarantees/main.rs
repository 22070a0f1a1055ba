//! YADTQ's guarantees on real servers. All tests are in one binary, because linking takes long.

mod bad_input;
mod blocked;
mod book;
mod control;
mod dead;
mod delays;
mod drain;
mod encrypted;
mod faults;
mod foreign;
mod headers;
mod limits;
mod long_head;
mod lost_broker;
mod lost_master;
mod lost_redis;
mod ordering;
mod periodic;
mod poison;
mod priority;
mod progress;
mod refused_writes;
mod restricted;
mod results;
mod retries;
mod revoke;
mod secrets;
mod secured;
mod sentinel;
mod unique;
mod versions;
mod volume;

use std::path::Path;

use yadtq::Client;
use yadtq_tests::{
    process::{Env, Process},
    servers,
};

/// A test's servers, namespace, client and workers.
struct Bench {
    namespace: String,
    redis: String,
    env: Env,
    client: Client,
}

impl Bench {
    /// Uses the shared servers.
    async fn new(test: &str) -> Self {
        Self::on(test, &servers::redis()).await
    }

    /// Uses another Redis.
    async fn on(test: &str, redis: &str) -> Self {
        let (kafka, namespace) = (servers::kafka(), yadtq_tests::namespace(test));
        let client =
            Client::builder().kafka(&kafka).redis(redis).namespace(&namespace).build().await.expect("a client");
        let env = Env::new(&kafka, redis, &namespace);
        Self { namespace, redis: redis.to_owned(), env, client }
    }

    /// Starts a worker process.
    fn worker(&self) -> Process {
        worker_with(&self.env)
    }

    /// Starts a worker process, and waits until it has all partitions of the default queue.
    async fn ready_worker(&self) -> Process {
        let worker = self.worker();
        worker.event("worker_connected", |_| true).await;
        worker.event("partitions_assigned", |_| true).await;
        worker
    }

    /// A connection of the test's own to Redis.
    async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis.as_str()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("redis answers")
    }

    fn key(&self, id: &yadtq::TaskId) -> String {
        format!("{}:task:{{{id}}}", self.namespace)
    }
}

/// Starts a worker process in this environment.
fn worker_with(env: &Env) -> Process {
    Process::start(Path::new(env!("CARGO_BIN_EXE_test-worker")), &[], env)
}
