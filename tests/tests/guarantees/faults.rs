//! Servers that are missing, restart, or have wrong settings.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use redis::AsyncCommands as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use yadtq::{Client, Error};
use yadtq_tests::{
    namespace,
    process::Env,
    servers::{self, Kafka, Redis, free_port},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_servers_that_have_not_started_yet() {
    let bench = Bench::new("early").await;
    let (kafka, redis) = (free_port(), free_port());
    let env = Env::new(&format!("127.0.0.1:{kafka}"), &format!("redis://127.0.0.1:{redis}"), &bench.namespace);
    let worker = worker_with(&env);
    worker.event("broker_unreachable", |_| true).await;
    worker.event("backend_unreachable", |_| true).await;
    let _kafka = forward(kafka, servers::kafka(), |_| {}).await;
    let _redis = forward(redis, host(&servers::redis()), |_| {}).await;
    worker.event("worker_connected", |_| true).await;
    let handle = tasks::add.call(1, 2).send(&bench.client).await.expect("acknowledged");
    assert_eq!(handle.wait(WAIT).await.expect("it runs"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_clearly_when_servers_are_missing() {
    let (kafka, redis) = (free_port(), free_port());
    let client = Client::builder()
        .kafka(format!("127.0.0.1:{kafka}"))
        .redis(format!("redis://127.0.0.1:{redis}"))
        .send_timeout(Duration::from_secs(3))
        .namespace(namespace("missing"))
        .build()
        .await
        .expect("missing servers are no error yet");
    let begun = Instant::now();
    let sent = tasks::add.call(1, 2).send(&client).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    let error = sent.expect_err("nobody acknowledged");
    assert!(matches!(error, Error::Unacknowledged { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("may or may not be queued") && text.contains("same id is safe"), "{text}");

    let begun = Instant::now();
    let report = client.admin().ping().await;
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    let (kafka_error, redis_error) = (report.kafka.expect_err("no kafka"), report.redis.expect_err("no redis"));
    assert!(kafka_error.to_string().contains(&kafka.to_string()), "{kafka_error}");
    assert!(redis_error.to_string().contains(&redis.to_string()), "{redis_error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_restart_and_forget_its_scripts() {
    let mut server = Redis::start(&["--appendonly", "yes"]);
    let bench = Bench::on("restart", &server.url()).await;
    let worker = bench.ready_worker().await;
    let long = tasks::nap.call(6_000).send(&bench.client).await.expect("acknowledged");
    worker.event("task_started", |_| true).await;
    server.stop();
    worker.event("backend_disconnected", |_| true).await;
    // The task is accepted while Redis is down, because Kafka has it.
    let meanwhile = tasks::add.call(20, 3).send(&bench.client).await.expect("kafka acknowledges");
    server.start_again();
    assert_eq!(meanwhile.wait(WAIT).await.expect("it runs"), 23);
    assert_eq!(long.wait(WAIT).await.expect("its result was recorded later"), 6_000);
    let mut redis = bench.redis().await;
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.expect("flushed");
    let after = tasks::add.call(1, 1).send(&bench.client).await.expect("acknowledged");
    assert_eq!(after.wait(WAIT).await.expect("it runs"), 2);
    assert_eq!(worker.events("task_started").iter().filter(|event| event["task"] == "nap").count(), 1, "it ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_be_killed_and_come_back() {
    let mut kafka = Kafka::start();
    let namespace = namespace("outage");
    let client = Client::builder().kafka(kafka.address()).redis(servers::redis()).namespace(&namespace);
    let client = client.send_timeout(Duration::from_secs(3)).build().await.expect("a client");
    let worker = worker_with(&Env::new(&kafka.address(), &servers::redis(), &namespace));
    worker.event("partitions_assigned", |_| true).await;
    let running = tasks::nap.call(4_000).send(&client).await.expect("acknowledged");
    worker.event("task_started", |_| true).await;
    let waiting = client.send_many((0..500).map(|_| tasks::nap.call(20))).await;
    let waiting: Vec<_> = waiting.into_iter().map(|handle| handle.expect("acknowledged")).collect();

    kafka.kill();
    worker.event("broker_disconnected", |_| true).await;
    assert_eq!(running.wait(WAIT).await.expect("what runs finishes without it"), 4_000);
    let refused = tasks::nap.call(1).send(&client).await;
    assert!(matches!(refused, Err(Error::Unacknowledged { .. })), "{refused:?}");

    kafka.start_again();
    let after = until("kafka takes tasks again", async || tasks::nap.call(2).send(&client).await.ok()).await;
    assert_eq!(after.wait(WAIT).await.expect("the worker is back"), 2);
    for handle in waiting {
        assert_eq!(handle.wait(WAIT).await.expect("nothing is lost"), 20);
    }
    worker.event("broker_connected", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_to_redis_is_detected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.push(stream);
        }
    });
    let bench = Bench::on("halfopen", &format!("redis://127.0.0.1:{port}")).await;
    let begun = Instant::now();
    let error = bench.client.admin().workers().await.expect_err("no answer");
    assert!(begun.elapsed() < Duration::from_secs(30), "noticed after {:?}", begun.elapsed());
    assert!(error.to_string().contains("redis does not answer"), "{error}");
    let begun = Instant::now();
    tasks::add.call(1, 2).send(&bench.client).await.expect("kafka acknowledges without it");
    assert!(begun.elapsed() < Duration::from_secs(30), "sent after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_reported_and_blocks_no_task() {
    let bench = Bench::new("wrongtype").await;
    let worker = bench.ready_worker().await;
    let mut redis = bench.redis().await;
    let id: yadtq::TaskId = "taken".parse().expect("an id");
    let () = redis.rpush(bench.key(&id), "not ours").await.expect("pushed");
    let blocked = tasks::add.call(1, 2).id(id.clone()).send(&bench.client).await.expect("kafka acknowledges");
    let free = tasks::add.call(3, 4).send(&bench.client).await.expect("acknowledged");
    assert_eq!(free.wait(WAIT).await.expect("it runs"), 7);
    let event = worker.event("claim_failed", |event| event["task_id"] == "taken").await;
    assert!(event["error"].as_str().unwrap_or_default().contains(&bench.key(&id)), "{event}");
    let error = blocked.wait(WAIT).await.expect_err("the handle reports it too");
    assert!(error.to_string().contains(&bench.key(&id)) && error.to_string().contains("delete or rename"), "{error}");
    let () = redis.del(bench.key(&id)).await.expect("deleted");
    let sum = until("it continues", async || bench.client.handle::<i64>(id.clone()).wait(WAIT).await.ok()).await;
    assert_eq!(sum, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_endanger_tasks_are_reported() {
    let server = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let bench = Bench::on("settings", &server.url()).await;
    let mut redis = bench.redis().await;
    for n in 0..15 {
        let () = redis.set(format!("ballast-{n}"), vec![b'x'; 5 << 20]).await.expect("there is room");
    }
    let topic = format!("{}.default", bench.namespace);
    let created = servers::kafka_tool("org.apache.kafka.tools.TopicCommand")
        .args([
            "--bootstrap-server",
            &servers::kafka(),
            "--create",
            "--topic",
            &topic,
            "--config",
            "retention.ms=60000",
        ])
        .output()
        .expect("java runs");
    assert!(created.status.success(), "{created:?}");
    let report = bench.client.admin().ping().await;
    let redis = report.redis.expect("redis answers").warnings.join("\n");
    assert!(redis.contains("allkeys-lru") && redis.contains("noeviction"), "{redis}");
    let is_nearly_full = |text: &str| text.contains("of 100 MB") && text.contains("Raise maxmemory");
    assert!(is_nearly_full(&redis), "{redis}");
    let kafka = report.kafka.expect("kafka answers").warnings.join("\n");
    assert!(kafka.contains(&topic) && kafka.contains("retention.ms"), "{kafka}");
    let worker = bench.worker();
    worker
        .event("backend_warning", |event| event["message"].as_str().unwrap_or_default().contains("allkeys-lru"))
        .await;
    worker
        .event("broker_warning", |event| event["message"].as_str().unwrap_or_default().contains("retention.ms"))
        .await;
    worker.event("backend_memory_high", |event| event["message"].as_str().is_some_and(is_nearly_full)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_redis_is_reported() {
    // This is the real server with a changed version in its answer, because an old server cannot be installed everywhere.
    let port = free_port();
    let _old = forward(port, host(&servers::redis()), |bytes| {
        let mark = b"redis_version:";
        if let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) {
            bytes[at + mark.len()] = b'5';
        }
    })
    .await;
    let bench = Bench::on("old", &format!("redis://127.0.0.1:{port}")).await;
    let said = until("a finding", async || match bench.client.admin().ping().await.redis {
        Ok(report) => Some(report.warnings.join("\n")),
        Err(error) => Some(error.to_string()),
    })
    .await;
    assert!(said.contains("6.2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_continues_after_its_topic_was_deleted() {
    let bench = Bench::new("deleted").await;
    let worker = bench.ready_worker().await;
    for handle in bench.client.send_many((0..200).map(|i| tasks::add.call(i, 1))).await {
        handle.expect("acknowledged").wait(WAIT).await.expect("it runs");
    }
    let (topic, before) = (format!("{}.default", bench.namespace), topic_id(&bench));
    topic_tool(&["--delete", "--topic", &topic]);
    // The first that needs the topic creates it again, and its offsets start at 0.
    let first = until("the topic is there again", async || tasks::add.call(1, 1).send(&bench.client).await.ok()).await;
    assert_eq!(first.wait(Duration::from_secs(60)).await.expect("it runs"), 2);
    assert_ne!(topic_id(&bench), before, "it is another topic");
    worker.event("partitions_revoked", |_| true).await;
    for (i, handle) in (0..).zip(bench.client.send_many((0..600).map(|i| tasks::add.call(i, 2))).await) {
        assert_eq!(handle.expect("acknowledged").wait(WAIT).await.expect("it runs"), i + 2);
    }
    until("what has ended is committed", async || {
        let queues = bench.client.admin().queues().await.ok()?;
        queues.iter().all(|queue| queue.lag == 0).then_some(())
    })
    .await;
    until("each has run once", async || (worker.events("task_started").len() == 801).then_some(())).await;
    // Another worker begins where the new topic's commits are.
    let mut worker = worker;
    worker.kill().await;
    let next = bench.ready_worker().await;
    let last = tasks::add.call(5, 5).send(&bench.client).await.expect("acknowledged");
    assert_eq!(last.wait(WAIT).await.expect("it runs"), 10);
    assert_eq!(next.events("task_received").len(), 1, "nothing is read again");
}

fn topic_tool(args: &[&str]) -> String {
    let mut tool = servers::kafka_tool("org.apache.kafka.tools.TopicCommand");
    let done = tool.args(["--bootstrap-server", &servers::kafka()]).args(args).output().expect("java runs");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Kafka's id of the default queue's topic, which a new topic of the same name does not share.
fn topic_id(bench: &Bench) -> String {
    let described = topic_tool(&["--describe", "--topic", &format!("{}.default", bench.namespace)]);
    let id = described.split("TopicId:").nth(1).and_then(|rest| rest.split_whitespace().next());
    id.unwrap_or_else(|| panic!("no id in {described}")).to_owned()
}

fn host(url: &str) -> String {
    url.trim_start_matches("redis://").trim_end_matches('/').to_owned()
}

/// Forwards connections; `change` may change what the server answers.
async fn forward(
    port: u16, to: String, change: impl Fn(&mut [u8]) + Copy + Send + Sync + 'static,
) -> tokio_task::Guard {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("the port is free");
    tokio_task::guard(tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let far = TcpStream::connect(&to).await?;
                let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
                    (near.into_split(), far.into_split());
                let up = tokio::io::copy(&mut near_read, &mut far_write);
                let down = async {
                    let mut buffer = vec![0; 64 * 1_024];
                    loop {
                        let count = far_read.read(&mut buffer).await?;
                        if count == 0 {
                            return io::Result::Ok(());
                        }
                        change(&mut buffer[..count]);
                        near_write.write_all(&buffer[..count]).await?;
                    }
                };
                tokio::try_join!(async { up.await.map(|_| ()) }, down).map(|_| ())
            });
        }
    }))
}

/// A background task that ends with its test.
mod tokio_task {
    use tokio::task::JoinHandle;

    pub(super) struct Guard(JoinHandle<()>);

    pub(super) fn guard(task: JoinHandle<()>) -> Guard {
        Guard(task)
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
}
