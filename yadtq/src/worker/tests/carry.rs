//! A task that runs for long, without servers: those behind it in its partition run and are committed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::until;
use crate::{
    Client, Context, Worker,
    broker::{Broker, Event, Outgoing},
    core::finished_set::FinishedSet,
    task::TaskError,
};

/// Enough to fill the window of a partition twice.
const SHORT: usize = 25_000;

/// How often each task has run, and when the long one may end.
struct Book {
    runs: Mutex<HashMap<String, usize>>,
    end: Semaphore,
}

#[crate::task(crate = crate)]
async fn long(ctx: Context) -> Result<(), TaskError> {
    let book = ctx.state::<Arc<Book>>()?;
    *book.runs.lock().unwrap().entry(ctx.id().to_string()).or_default() += 1;
    let _ = book.end.acquire().await;
    Ok(())
}

#[crate::task(crate = crate)]
async fn short(ctx: Context) -> Result<(), TaskError> {
    *ctx.state::<Arc<Book>>()?.runs.lock().unwrap().entry(ctx.id().to_string()).or_default() += 1;
    Ok(())
}

/// Puts records into partition 3 of the default queue.
async fn publish(broker: &dyn Broker, task: &str, ids: impl Iterator<Item = String>) {
    let record = |id: String| Outgoing {
        topic: "yadtq.default".into(),
        value: format!(r#"{{"task-id":"{id}","task":"{task}","args":[]}}"#).into(),
        key: id.into(),
        partition: Some(3),
        headers: Vec::new(),
    };
    assert!(broker.publish(ids.map(record).collect()).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_worker_that_stops_commits_what_ended_behind_a_long_task() {
    let client = Client::embedded();
    let broker = client.config().open_broker().unwrap();
    let book = Arc::new(Book { runs: Mutex::default(), end: Semaphore::new(0) });
    publish(&*broker, "long", ["long".to_owned()].into_iter()).await;
    publish(&*broker, "short", (1..=50).map(|number| number.to_string())).await;
    let worker = Worker::builder().client(&client).register(long).register(short).state(book);
    let worker = worker.drain_timeout(Duration::ZERO).start().await.unwrap();
    let ended = async |id: i64| {
        client.handle::<()>(id.to_string().parse().unwrap()).wait(Duration::from_secs(30)).await.unwrap();
    };
    until(async || (client.admin().task(&"50".parse().unwrap()).await.unwrap()).map(drop)).await;
    for id in 1..=50 {
        ended(id).await;
    }
    // Its end is sent once the worker knows those of the others.
    publish(&*broker, "short", ["51".to_owned()].into_iter()).await;
    until(async || (client.admin().task(&"51".parse().unwrap()).await.unwrap()).map(drop)).await;
    ended(51).await;
    worker.stop().await.unwrap();

    let subscription = broker.consumer().unwrap().subscribe(&"yadtq.default".into());
    subscription.assign(&[3]);
    let events = subscription.next().await;
    let Some(Event::Assigned(assigned)) = events.first() else { panic!("{events:?}") };
    let committed = assigned[0].committed.as_ref().unwrap();
    let noted = FinishedSet::read(committed.next, &committed.metadata);
    assert!(committed.next == 0 && (1..=50).all(|offset| noted.names(offset, Some(0))), "{committed:?}");
}

#[tokio::test]
async fn a_long_task_keeps_nothing_behind_it_from_running_and_being_committed() {
    let client = Client::embedded();
    let broker = client.config().open_broker().unwrap();
    let book = Arc::new(Book { runs: Mutex::default(), end: Semaphore::new(0) });
    publish(&*broker, "long", ["long".to_owned()].into_iter()).await;
    publish(&*broker, "short", (0..SHORT).map(|number| number.to_string())).await;
    let worker = Worker::builder().client(&client).register(long).register(short).state(Arc::clone(&book));
    let worker = worker.start().await.unwrap();
    let runs = || book.runs.lock().unwrap().len();
    until(async || (runs() == SHORT + 1).then_some(())).await;
    let first = async || {
        let ranges = broker.offset_ranges(&"yadtq.default".into()).await.unwrap();
        ranges.iter().find(|range| range.partition == 3).unwrap().start
    };
    // Whatever is committed is dropped; with the long one at the head, nothing would be.
    until(async || (first().await > 9_000).then_some(())).await;
    let head = client.handle::<()>("long".parse().unwrap());
    assert_eq!(head.status().await.unwrap(), crate::Status::Running, "its run goes on");
    book.end.close();
    head.wait(Duration::from_secs(30)).await.unwrap();
    let ended = async || (client.admin().queues().await.unwrap().iter().all(|queue| queue.lag == 0)).then_some(());
    until(ended).await;
    worker.stop().await.unwrap();
    let runs = book.runs.lock().unwrap();
    assert!(runs.values().all(|&count| count == 1), "each ran once");
}
