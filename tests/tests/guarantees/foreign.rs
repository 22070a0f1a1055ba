//! Tasks from programs without this library.

use std::{collections::HashMap, io::Write as _, process::Stdio, time::Duration};

use redis::AsyncCommands as _;
use yadtq::{Client, TaskId};
use yadtq_tests::{servers, until};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_own_console_producer_can_send_a_task() {
    let bench = Bench::new("console").await;
    let _worker = bench.ready_worker().await;
    let mut producer = servers::kafka_tool("org.apache.kafka.tools.ConsoleProducer")
        .args(["--bootstrap-server", &servers::kafka(), "--topic", &format!("{}.default", bench.namespace)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("java runs");
    let mut input = producer.stdin.take().expect("stdin is piped");
    input.write_all(b"{\"task-id\":\"d5750c0e-ed82\",\"task\":\"add\",\"args\":[1,2]}\n").expect("it reads");
    drop(input);
    assert!(producer.wait().expect("it ends").success());

    let id: TaskId = "d5750c0e-ed82".parse().expect("an id");
    let mut redis = bench.redis().await;
    let hash = until("the task ends", async || {
        let hash: HashMap<String, String> = redis.hgetall(bench.key(&id)).await.expect("redis answers");
        (hash.get("status").is_some_and(|status| status == "success")).then_some(hash)
    })
    .await;
    assert_eq!(hash["result"], "3", "{hash:?}");
    assert_eq!(bench.client.handle::<i64>(id).wait(Duration::from_secs(10)).await.expect("a result"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_by_id_is_notified_in_another_process() {
    let bench = Bench::new("by-id").await;
    let _worker = bench.ready_worker().await;
    let sent = yadtq_tests::tasks::nap.call(1_500).send(&bench.client).await.expect("acknowledged");
    let other = Client::builder().kafka(servers::kafka()).redis(servers::redis()).namespace(&bench.namespace);
    let other = other.build().await.expect("a client");
    let found = other.handle::<u64>(sent.id().clone());
    // Well below the 30 s after which the handle would poll: it was notified.
    assert_eq!(found.wait(Duration::from_secs(15)).await.expect("a result"), 1_500);

    let unknown = other.handle::<u64>(TaskId::new()).wait(Duration::from_secs(15)).await;
    assert!(matches!(unknown, Err(yadtq::Error::NotFound { .. })), "{unknown:?}");
    let old: TaskId = "01890000-0000-7000-8000-000000000000".parse().expect("an id");
    let expired = other.handle::<u64>(old).wait(Duration::from_secs(15)).await;
    assert!(matches!(expired, Err(yadtq::Error::ResultExpired { .. })), "{expired:?}");
}
