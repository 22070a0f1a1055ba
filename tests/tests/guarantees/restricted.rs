//! A Redis user that may do no more than what the guide says, and use no channels: what a new user is since Redis 7.

use std::time::Duration;

use yadtq::{Client, Status};
use yadtq_tests::{
    namespace,
    process::Env,
    servers::{self, Redis},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(60);
const GUIDE: &str = include_str!("../../../yadtq/src/guide/operations.md");

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_user_without_channels_loses_nothing() {
    let server = Redis::start(&[]);
    let (kafka, namespace) = (servers::kafka(), namespace("restricted"));
    let url = add_user(&server, &namespace).await;
    let client = Client::builder().kafka(&kafka).redis(&url).namespace(&namespace).build().await.expect("a client");
    let env = Env::new(&kafka, &url, &namespace).with("TEST_LEASE_MS", "2000");
    let bench = Bench { namespace, redis: server.url(), env, client };
    let mut workers = vec![worker_with(&bench.env), worker_with(&bench.env)];
    for worker in &workers {
        worker.event("partitions_assigned", |_| true).await;
        let event = worker.event("channels_denied", |_| true).await;
        assert!(event["message"].as_str().is_some_and(|text| text.contains("ACL SETUSER")), "{event}");
    }

    for (n, sent) in (0..).zip(bench.client.send_many((0..100).map(|n| tasks::add.call(n, 1))).await) {
        assert_eq!(sent.expect("acknowledged").wait(WAIT).await.expect("a result, without a notice"), n + 1);
    }
    let failed = tasks::fail.call("no".to_owned()).send(&bench.client).await.expect("acknowledged");
    assert!(failed.wait(WAIT).await.is_err());

    // A revocation reaches the run with the extension of its lease.
    let endless = tasks::nap.call(600_000).send(&bench.client).await.expect("acknowledged");
    let has_started = |id: &str| {
        workers.iter().position(|worker| worker.events("task_started").iter().any(|event| event["task_id"] == id))
    };
    until("it runs", async || has_started(endless.id().as_str())).await;
    endless.revoke().await.expect("it is asked to end");
    assert!(matches!(endless.wait(WAIT).await, Err(yadtq::Error::Revoked { .. })));

    // What a killed worker ran is noticed by its lease.
    let long = tasks::nap.call(3_000).send(&bench.client).await.expect("acknowledged");
    let at = until("it runs", async || has_started(long.id().as_str())).await;
    workers.remove(at).kill().await;
    let again = workers[0].event("task_started", |event| event["task_id"] == long.id().as_str()).await;
    assert_eq!(again["task"], "nap", "{again}");
    assert_eq!(long.wait(WAIT).await.expect("it runs again"), 3_000);
    let info = bench.client.admin().task(long.id()).await.expect("an answer").expect("a record");
    assert_eq!((info.status, info.deliveries), (Status::Success, 1));

    let warnings = bench.client.admin().ping().await.redis.expect("an answer").warnings;
    let rights: Vec<_> = warnings.iter().filter(|warning| warning.contains("this user")).collect();
    let remedy = format!("ACL SETUSER <user> &{}:*", bench.namespace);
    assert!(matches!(rights[..], [one] if one.ends_with(&remedy)), "{warnings:#?}");
}

/// Adds a user with the rights that the guide names, but for channels; returns a URL with its password.
async fn add_user(server: &Redis, namespace: &str) -> String {
    let rights = GUIDE.split("ACL SETUSER worker ").nth(1).and_then(|rest| rest.split("```").next()).expect("a list");
    let rights = rights.replace("yadtq:", &format!("{namespace}:"));
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut admin = until("redis answers", async || client.get_multiplexed_async_connection().await.ok()).await;
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("worker").arg("resetchannels");
    command.arg(rights.split_whitespace().filter(|right| !right.starts_with('&')).collect::<Vec<_>>());
    let () = command.query_async(&mut admin).await.expect("a user");
    server.url().replace("redis://", "redis://worker:password@")
}
