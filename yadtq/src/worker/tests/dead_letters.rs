//! What becomes of records that can't be published, and of failures whose records come back, without servers.

use std::{sync::Arc, time::Duration};

use super::until;
use crate::{
    Client, Context, Error, TaskId, Worker,
    admin::times,
    broker::{Broker, Outgoing},
    task::TaskError,
    wire::failure::ErrorKind,
};

/// The longest value of a record with a key of one byte that a queue's topic takes.
const LARGEST: usize = 1_048_588 - 81;

const WAIT: Duration = Duration::from_secs(30);

#[crate::task(crate = crate)]
async fn ends() {}

#[crate::task(crate = crate)]
async fn fails() -> Result<(), TaskError> {
    Err(TaskError::fatal("no luck"))
}

/// Asks for another attempt at once or, if it is named so, in a moment.
#[crate::task(crate = crate)]
async fn tries_again(ctx: Context) -> Result<(), TaskError> {
    let wait = if ctx.id().as_str() == "l" { Duration::from_millis(50) } else { Duration::ZERO };
    Err(TaskError::retry_after("busy", wait))
}

async fn worker(client: &Client) -> crate::RunningWorker {
    let worker = Worker::builder().client(client).register(ends).register(fails).register(tries_again);
    worker.start().await.unwrap()
}

/// Publishes a record whose value has this many bytes, if that is not 0.
async fn publish(broker: &dyn Broker, topic: &str, key: &str, value: &str, bytes: usize) {
    let filler = "x".repeat(bytes.saturating_sub(value.len() + r#","x":""}"#.len() - 1));
    let value = if bytes == 0 { value.to_owned() } else { value.replacen('}', &format!(r#","x":"{filler}"}}"#), 1) };
    assert!(bytes == 0 || value.len() == bytes, "{}", value.len());
    let (topic, key, value) = (Arc::from(topic), key.to_owned().into(), value.into());
    let record = Outgoing { topic, key, value, partition: None, headers: Vec::new() };
    broker.publish(vec![record]).await.pop().unwrap().unwrap();
}

/// Waits for the end of a task that was sent without a client.
async fn ended(client: &Client, id: &str) -> Result<(), Error> {
    let id: TaskId = id.parse().unwrap();
    until(async || client.admin().task(&id).await.unwrap().map(drop)).await;
    client.handle::<()>(id).wait(WAIT).await
}

async fn failed(client: &Client, id: &str) -> (ErrorKind, String) {
    match ended(client, id).await {
        Err(Error::TaskFailed { kind, message, .. }) => (kind, message),
        other => panic!("{id}: {other:?}"),
    }
}

#[tokio::test]
async fn a_delayed_task_that_its_queue_does_not_take_fails() {
    let client = Client::embedded();
    let broker = client.config().open_broker().unwrap();
    let delayed = |id: &str| format!(r#"{{"task-id":"{id}","task":"ends","args":[],"eta":5,"queue":"default"}}"#);
    publish(&*broker, "yadtq.delayed", "big/1", &delayed("big"), LARGEST + 30_000).await;
    publish(&*broker, "yadtq.delayed", "small/1", &delayed("small"), 0).await;
    let worker = worker(&client).await;
    let (kind, message) = failed(&client, "big").await;
    assert_eq!(kind, ErrorKind::Unpublishable);
    assert!(message.contains("larger than topic yadtq.default accepts"), "{message}");
    ended(&client, "small").await.unwrap();
    let letters = || client.admin().dead_letters();
    until(async || (letters().count().await.unwrap() == 1).then_some(())).await;
    until(async || (client.admin().scheduled(9).await.unwrap().total == 0).then_some(())).await;
    let letter = letters().reason("unpublishable").page().await.unwrap().letters.remove(0);
    assert_eq!((letter.queue.as_deref(), letter.value().len()), (Some("default"), LARGEST + 30_000));
    worker.stop().await.unwrap();
}

/// The record that was sent fits; the next one names its attempt, and does not.
#[tokio::test]
async fn a_retry_that_has_outgrown_its_queue_fails() {
    let client = Client::embedded();
    let broker = client.config().open_broker().unwrap();
    let worker = worker(&client).await;
    // One comes from the worker that ran the task, the other from the scheduler.
    for id in ["n", "l"] {
        let task = format!(r#"{{"task-id":"{id}","task":"tries_again","args":[]}}"#);
        publish(&*broker, "yadtq.default", id, &task, LARGEST - 5).await;
        assert_eq!(failed(&client, id).await.0, ErrorKind::Unpublishable, "{id}");
        let letters = || client.admin().dead_letters().id(id.parse::<TaskId>().unwrap());
        until(async || (letters().count().await.unwrap() == 1).then_some(())).await;
    }
    // Smaller ones lose only why their attempts failed, and have four.
    let task = r#"{"task-id":"m","task":"tries_again","args":[]}"#;
    publish(&*broker, "yadtq.default", "m", task, LARGEST - 40).await;
    assert_eq!(failed(&client, "m").await, (ErrorKind::Error, "busy".to_owned()));
    until(async || (client.admin().queues().await.unwrap().iter().all(|queue| queue.lag == 0)).then_some(())).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_failed_record_that_comes_back_has_one_dead_letter() {
    let client = Client::embedded();
    let broker = client.config().open_broker().unwrap();
    let worker = worker(&client).await;
    let caught_up = async || (client.admin().queues().await.unwrap().iter().all(|queue| queue.lag == 0)).then_some(());
    let task = r#"{"task-id":"f","task":"fails","args":[]}"#;
    publish(&*broker, "yadtq.default", "f", task, 0).await;
    assert_eq!(failed(&client, "f").await, (ErrorKind::Error, "no luck".to_owned()));
    for _ in 0..20 {
        publish(&*broker, "yadtq.default", "f", task, 0).await;
    }
    until(caught_up).await;
    worker.stop().await.unwrap();
    let worker = self::worker(&client).await;
    publish(&*broker, "yadtq.default", "f", task, 0).await;
    until(caught_up).await;
    assert_eq!(client.admin().dead_letters().count().await.unwrap(), 1);
    assert_eq!(client.admin().dead_letters().replay().await.unwrap().replayed, 1);
    until(async || (client.admin().dead_letters().count().await.unwrap() == 1).then_some(())).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn run_now_means_the_task_and_none_whose_id_begins_alike() {
    let client = Client::embedded();
    let ids = ["order/17", "order/17/reminder", "order/17/2"];
    for id in ids {
        let call = ends.call().id(id.parse().unwrap()).countdown(Duration::from_secs(3_600));
        call.send(&client).await.unwrap();
    }
    assert!(client.admin().run_now(&"order/17".parse().unwrap()).await.unwrap());
    assert!(!client.admin().run_now(&"order".parse().unwrap()).await.unwrap());
    let waiting = client.admin().scheduled(9).await.unwrap().tasks;
    let now_ms = client.config().clock.now_ms();
    let due: Vec<_> =
        waiting.iter().filter(|task| task.eta <= times::at(now_ms)).map(|task| task.id.as_str()).collect();
    assert_eq!((waiting.len(), due), (3, vec!["order/17"]));
}
