//! Several workers: work goes where there are free slots.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Barrier, Semaphore};

use super::until;
use crate::{
    Client, Context, RunningWorker, TaskHandle, Worker,
    broker::{Broker, Outgoing},
    core::{names::TaskId, slots::TaskSet},
    store::{FreeSlots, Notice, NoticeReceiver, Store, Submission},
    task::TaskError,
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn servers(client: &Client) -> (Arc<dyn Broker>, Arc<dyn Store>) {
    (client.config().open_broker().unwrap(), client.config().open_store().unwrap())
}

/// Sends this many tasks without arguments to one partition.
async fn send(client: &Client, task: &str, partition: i32, count: usize) -> Vec<TaskHandle<u32>> {
    send_with(client, task, partition, count, |_| String::new()).await
}

/// Sends this many tasks to one partition; `args` says for each number what its arguments are.
async fn send_with(
    client: &Client, task: &str, partition: i32, count: usize, args: impl Fn(usize) -> String,
) -> Vec<TaskHandle<u32>> {
    let (broker, store) = servers(client);
    let ids: Vec<_> = (0..count).map(|_| TaskId::new()).collect();
    let submission = |id: &TaskId| Submission {
        id: id.clone(),
        task: task.into(),
        queue: "default".into(),
        reply_to: None,
        eta: None,
    };
    store.submit(&ids.iter().map(submission).collect::<Vec<_>>()).await.unwrap();
    let record = |(number, id): (usize, &TaskId)| Outgoing {
        topic: "yadtq.default".into(),
        key: Bytes::new(),
        value: format!(r#"{{"task-id":"{id}","task":"{task}","args":[{}]}}"#, args(number)).into(),
        partition: Some(partition),
        headers: Vec::new(),
    };
    let answers = broker.publish(ids.iter().enumerate().map(record).collect()).await;
    assert!(answers.iter().all(Result::is_ok));
    ids.into_iter().map(|id| client.handle(id)).collect()
}

async fn results(handles: Vec<TaskHandle<u32>>) -> Vec<u32> {
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.wait(TIMEOUT).await.unwrap());
    }
    results
}

/// Waits until all offsets are committed.
async fn drained(client: &Client) {
    until(async || {
        let queues = client.admin().queues().await.unwrap();
        queues.iter().all(|queue| queue.lag == 0).then_some(())
    })
    .await;
}

async fn stop(workers: impl IntoIterator<Item = RunningWorker>) {
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

/// Returns once all those that it waits for have started.
#[crate::task(crate = crate)]
async fn meet(ctx: Context) -> Result<u32, TaskError> {
    ctx.state::<Arc<Barrier>>()?.wait().await;
    Ok(ctx.attempt())
}

#[tokio::test]
async fn tasks_of_one_partition_start_at_once_wherever_there_are_slots() {
    let (client, barrier) = (Client::embedded(), Arc::new(Barrier::new(12)));
    let mut workers = Vec::new();
    for _ in 0..3 {
        let worker = Worker::builder().client(&client).register(meet).state(Arc::clone(&barrier)).concurrency(4);
        workers.push(worker.start().await.unwrap());
    }
    for partition in [0, 7] {
        let handles = send(&client, "meet", partition, 12).await;
        assert_eq!(results(handles).await, [1; 12]);
    }
    drained(&client).await;
    stop(workers).await;
}

/// Fails at its first attempt if it is even, and for good at its second if it is 0.
#[crate::task(crate = crate, retry_base = "5ms")]
async fn stumble(ctx: Context, number: u32) -> Result<u32, TaskError> {
    let shared = ctx.state::<Arc<Semaphore>>()?;
    // So many that run at once that no worker has slots for all.
    shared.acquire().await.map_err(|_| TaskError::fatal("closed"))?.forget();
    match (number, ctx.attempt()) {
        (0, 2) => Err(TaskError::fatal("never")),
        (number, 1) if number % 2 == 0 => Err(TaskError::retry("at first")),
        _ => Ok(ctx.attempt()),
    }
}

#[tokio::test]
async fn what_follows_a_run_under_an_offer_is_published_once() {
    let (client, permits) = (Client::embedded(), Arc::new(Semaphore::new(0)));
    let mut workers = Vec::new();
    for _ in 0..3 {
        let worker = Worker::builder().client(&client).register(stumble).state(Arc::clone(&permits)).concurrency(4);
        workers.push(worker.start().await.unwrap());
    }
    let handles = send_with(&client, "stumble", 5, 12, |number| number.to_string()).await;
    let running = async || {
        let workers = client.admin().workers().await.unwrap();
        (workers.iter().map(|worker| worker.running).sum::<usize>() == 12).then_some(())
    };
    until(running).await;
    permits.add_permits(100);
    for (number, handle) in handles.iter().enumerate() {
        let result = handle.wait(TIMEOUT).await;
        assert_eq!(result.is_ok(), number != 0, "{number}: {result:?}");
        assert!(result.is_err() || result.unwrap() == 2 - u32::from(number % 2 == 1));
    }
    drained(&client).await;
    let mut dead = client.admin().dead_letters().walk().await.unwrap();
    let mut letters = Vec::new();
    while let Some(letter) = dead.next().await.unwrap() {
        letters.push(letter);
    }
    assert_eq!(letters.len(), 1, "{letters:?}");
    stop(workers).await;
}

#[crate::task(crate = crate)]
async fn rare(ctx: Context) -> u32 {
    ctx.attempt()
}

#[crate::task(crate = crate)]
async fn common(ctx: Context) -> u32 {
    ctx.attempt()
}

#[tokio::test]
async fn a_task_runs_where_it_is_known() {
    let client = Client::embedded();
    let worker = || Worker::builder().client(&client).unknown_task_grace(Duration::from_secs(600));
    let first = worker().register(rare).start().await.unwrap();
    let second = worker().register(common).start().await.unwrap();
    let mut handles = Vec::new();
    for partition in 0..12 {
        handles.extend(send(&client, "rare", partition, 2).await);
        handles.extend(send(&client, "common", partition, 2).await);
    }
    assert_eq!(results(handles).await, [1; 48], "none counted as unknown");
    drained(&client).await;
    stop([first, second]).await;
}

/// Waits for a permit.
#[crate::task(crate = crate)]
async fn wait(ctx: Context) -> Result<u32, TaskError> {
    let permits = ctx.state::<Arc<Semaphore>>()?;
    permits.acquire().await.map_err(|_| TaskError::fatal("closed"))?.forget();
    Ok(ctx.attempt())
}

/// A worker in name only.
struct Ghost(Box<dyn NoticeReceiver>);

impl Ghost {
    /// Announces a slot for `wait`.
    async fn appear(store: &dyn Store) -> Self {
        let (id, tasks) = ("ghost".into(), Arc::new(TaskSet::new(["wait"])));
        let ghost = Self(store.control(&id).await.unwrap());
        store.announce(&id, &[FreeSlots { queue: "default".into(), tasks, count: 1 }]).await.unwrap();
        ghost
    }

    /// How many records it was offered.
    async fn offered(&mut self) -> usize {
        loop {
            if let Notice::Offer(offer) = self.0.next().await {
                return offer.records.len();
            }
        }
    }
}

#[tokio::test]
async fn an_offer_that_is_lost_costs_nothing() {
    let (client, permits) = (Client::embedded(), Arc::new(Semaphore::new(0)));
    let worker = Worker::builder().client(&client).register(wait).state(Arc::clone(&permits)).concurrency(1);
    let worker = worker.start().await.unwrap();
    let store = servers(&client).1;
    let mut ghost = Ghost::appear(&*store).await;
    let handles = send(&client, "wait", 3, 2).await;
    assert_eq!(tokio::time::timeout(TIMEOUT, ghost.offered()).await.unwrap(), 1);
    permits.add_permits(2);
    assert_eq!(results(handles).await, [1; 2]);
    drained(&client).await;
    stop([worker]).await;
}

#[tokio::test]
async fn what_is_offered_to_a_worker_that_is_gone_is_ready_at_once() {
    let (client, permits) = (Client::embedded(), Arc::new(Semaphore::new(0)));
    let worker = Worker::builder().client(&client).register(wait).state(Arc::clone(&permits)).concurrency(1);
    let worker = worker.start().await.unwrap();
    drop(Ghost::appear(&*servers(&client).1).await);
    let handles = send(&client, "wait", 3, 4).await;
    permits.add_permits(4);
    assert_eq!(results(handles).await, [1; 4]);
    drained(&client).await;
    stop([worker]).await;
}

#[tokio::test]
async fn a_worker_that_stops_gives_back_what_it_runs_under_offers() {
    let (client, permits) = (Client::embedded(), Arc::new(Semaphore::new(0)));
    let worker = || {
        let worker = Worker::builder().client(&client).register(wait).state(Arc::clone(&permits)).concurrency(2);
        worker.drain_timeout(Duration::ZERO)
    };
    let (first, second) = (worker().start().await.unwrap(), worker().start().await.unwrap());
    let handles = send(&client, "wait", 3, 4).await;
    let running = async |count| {
        let workers = client.admin().workers().await.unwrap();
        workers.iter().map(|worker| worker.running).sum::<usize>() == count
    };
    until(async || running(4).await.then_some(())).await;
    second.stop().await.unwrap();
    permits.add_permits(4);
    assert_eq!(results(handles).await, [1; 4]);
    drained(&client).await;
    stop([first]).await;
}
