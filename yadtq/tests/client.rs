//! Tests of a client with servers in memory: what it refuses, what a handle returns, and what a client outlives.
#![allow(missing_docs)]

use std::time::Duration;

use tokio::runtime::Runtime;
use yadtq::{Call, Client, Error, Rate, Retry, State, Status, TaskId, Worker};

#[yadtq::task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[yadtq::task]
async fn wait_forever() {
    std::future::pending::<()>().await;
}

const WAIT: Duration = Duration::from_secs(30);

fn refusal<T: std::fmt::Debug>(sent: Result<T, Error>) -> String {
    sent.expect_err("refused").to_string()
}

#[tokio::test]
async fn wrong_calls_are_refused_before_they_are_sent() {
    let client = Client::embedded();
    let says = |text: &str, sent: String| assert!(sent.contains(text), "`{text}` in `{sent}`");
    says("`Mail` must match", refusal(add.call(1, 2).queue("Mail").send(&client).await));
    says("`dead` is reserved", refusal(add.call(1, 2).queue("dead").send(&client).await));
    says("timeout: must be at least 1 ms", refusal(add.call(1, 2).timeout(Duration::ZERO).send(&client).await));
    says("1 to 256 bytes", refusal(Call::<()>::named("", [1]).send(&client).await));
    says("1 to 256 bytes", refusal(Call::<()>::named("x".repeat(257), [1]).send(&client).await));
    says("must be an array or an object", refusal(Call::<()>::named("add", 1).send(&client).await));
    let large = Call::<()>::named("add", ["x".repeat(1_000_000)]).send(&client).await;
    assert!(matches!(large, Err(Error::TooLarge { len: 1_000_000.., max: 921_600, .. })), "{large:?}");
    assert!(client.admin().queues().await.unwrap().iter().all(|queue| queue.records == 0), "nothing was sent");
}

#[tokio::test]
async fn one_bad_call_keeps_no_other_from_being_sent() {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(add).start().await.unwrap();
    let calls = (0..2_500).map(|i| if i == 7 { add.call(i, 1).queue("??") } else { add.call(i, 1) });
    for (i, sent) in (0..).zip(client.send_many(calls).await) {
        match sent {
            Ok(handle) => assert_eq!(handle.wait(WAIT).await.unwrap(), i + 1),
            Err(error) => assert!(i == 7, "{i}: {error}"),
        }
    }
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn the_same_id_is_the_same_task() {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(add).start().await.unwrap();
    let id = TaskId::new();
    let first = add.call(1, 2).id(id.clone()).send(&client).await.unwrap();
    assert_eq!(first.wait(WAIT).await.unwrap(), 3);
    // It is sent again with other arguments after it has ended and its handle is gone: it keeps its result.
    drop(first);
    let again = add.call(100, 200).id(id).send(&client).await.unwrap();
    assert_eq!(again.wait(Duration::from_secs(5)).await.unwrap(), 3);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_handle_returns_the_status_of_its_task() {
    let client = Client::embedded();
    let handle = wait_forever.call().send(&client).await.unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Queued);
    assert!(handle.result().await.unwrap().is_none());
    assert!(matches!(handle.wait(Duration::from_millis(50)).await, Err(Error::WaitTimeout { .. })));

    let unknown = client.handle::<i64>(TaskId::new());
    assert!(matches!(unknown.status().await, Err(Error::NotFound { .. })));
    assert!(matches!(unknown.wait(WAIT).await, Err(Error::NotFound { .. })));
    // A handle first learns that the task does not exist, and then it exists.
    let late = add.call(2, 3).id(unknown.id().clone()).send(&client).await.unwrap();
    let worker = Worker::builder().client(&client).register(add).drain_timeout(Duration::ZERO).start().await.unwrap();
    assert_eq!(late.wait(WAIT).await.unwrap(), 5);
    let wrong = client.handle::<String>(late.id().clone()).wait(WAIT).await;
    assert!(matches!(wrong, Err(Error::ResultType { .. })), "{wrong:?}");
    worker.stop().await.unwrap();
}

#[test]
fn a_client_outlives_the_runtime_it_was_made_on() {
    let first = Runtime::new().unwrap();
    let client = first.block_on(async { Client::embedded() });
    drop(first);
    let second = Runtime::new().unwrap();
    second.block_on(async {
        let worker = Worker::builder().client(&client).register(add).start().await.unwrap();
        let handle = add.call(1, 2).send(&client).await.unwrap();
        assert_eq!(handle.wait(WAIT).await.unwrap(), 3);
        worker.stop().await.unwrap();
    });
}

#[test]
fn a_worker_hands_back_what_a_dropped_runtime_ran() {
    let outer = Runtime::new().unwrap();
    let client = Client::embedded();
    let handle = outer.block_on(wait_forever.call().send(&client)).unwrap();
    let inner = Runtime::new().unwrap();
    let worker = inner.block_on(Worker::builder().client(&client).register(wait_forever).start()).unwrap();
    let is = async |status: Status| {
        while handle.status().await.unwrap() != status {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    outer.block_on(async { tokio::time::timeout(WAIT, is(Status::Running)).await.unwrap() });
    drop(inner);
    outer.block_on(async { tokio::time::timeout(WAIT, is(Status::Queued)).await.unwrap() });
    let ended = outer.block_on(worker.stop()).unwrap_err();
    assert!(ended.to_string().contains("runtime"), "{ended}");
}

#[yadtq::task(retry_cap = "5s")]
async fn hasty() {}

#[yadtq::task]
async fn needs(_: State<String>, _: State<u8>) {}

#[tokio::test]
async fn wrong_workers_are_refused() {
    let client = Client::embedded();
    let build = || Worker::builder().client(&client);
    let says = |text: &str, built: Result<Worker, Error>| {
        let error = built.expect_err("refused").to_string();
        assert!(error.contains(text), "`{text}` in `{error}`");
    };
    says("no task is registered", build().build());
    says("two tasks named `add`", build().register(add).register(add).build());
    says("concurrency: must be at least 1", build().register(add).concurrency(0).build());
    let rate = Rate::per_second(0);
    says(
        "queue_rate: queue `default`: rate: a rate of zero",
        build().register(add).queue_rate("default", rate).build(),
    );
    says("task `add`: rate_limit: a rate of zero", build().register(add).task_rate("add", rate).build());
    let rate = Rate::per_second(1);
    says("task `add`: rate_burst: must be 1 to", build().register(add).task_rate("add", rate.burst(0)).build());
    says("task_rate: no task named `sub` is registered", build().register(add).task_rate("sub", rate).build());
    says("queue_rate: queue `mail`: this worker does not", build().register(add).queue_rate("mail", rate).build());
    says("task `add`: max_running: no task would run", build().register(add).task_max_running("add", 0).build());
    says("task_max_running: no task named `sub`", build().register(add).task_max_running("sub", 5).build());
    says("concurrency: must be at most", build().register(add).concurrency(usize::MAX).build());
    says("`events` is reserved", build().register(add).queues(["mail", "events"]).build());
    says("revoke_grace: must be at most a day", build().register(add).revoke_grace(Duration::MAX).build());
    let slow = Retry::new().base(Duration::from_secs(60));
    says("task `hasty`: retry_base: must not be longer", build().register(hasty).retry(slow).build());
    says(
        "state: task `needs` needs alloc::string::String, task `needs` needs u8; add .state(value)",
        build().register(needs).build(),
    );
    says("state: task `needs` needs u8; add", build().register(needs).state(String::new()).build());
    drop(build().register(needs).state(String::new()).state(1_u8).build().unwrap());
    says("queues: none", build().register(add).queues(Vec::<String>::new()).build());
    build().register(add).drain_timeout(Duration::MAX).start().await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn wrong_settings_name_the_setting() {
    let says = async |text: &str, builder: yadtq::ClientBuilder| {
        let error = builder.build().await.expect_err("refused");
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(text), "`{text}` in `{error}`");
    };
    let real = || Client::builder().kafka("localhost:1").redis("redis://localhost:1");
    says("YADTQ_NAMESPACE", real().namespace("Not This")).await;
    says("YADTQ_REDIS", real().redis("http://localhost")).await;
    says("`acks`", real().kafka_conf("acks", "0")).await;
    says("send_timeout", real().send_timeout(Duration::ZERO)).await;
    says("partitions", real().partitions(0)).await;
}
