//! Ordering keys without servers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::until;
use crate::{Client, Context, Error, RunningWorker, Status, Worker, task::TaskError};

/// What runs, and what has ended, by key.
#[derive(Default)]
struct Book {
    running: HashMap<String, u32>,
    ended: HashMap<String, Vec<u32>>,
    attempts: usize,
}

type Shared = Arc<Mutex<Book>>;

/// Fails for good if another task of its key runs, or if it is not the next one. Every fourth fails at its first attempt.
#[crate::task(crate = crate, retry_base = "5ms")]
async fn book(ctx: Context, key: String, number: u32) -> Result<(), TaskError> {
    let shared = ctx.state::<Shared>()?;
    let enter = || {
        let mut shared = shared.lock().unwrap();
        shared.attempts += 1;
        let before = shared.ended.get(&key).map_or(0, Vec::len);
        let other = shared.running.insert(key.clone(), number);
        (before, other)
    };
    let (before, other) = enter();
    if other.is_some() || before != number as usize {
        return Err(TaskError::fatal(format!("{number} begins after {before}, while {other:?} runs")));
    }
    tokio::time::sleep(Duration::from_millis(u64::from(number % 3))).await;
    let mut shared = shared.lock().unwrap();
    shared.running.remove(&key);
    if number % 4 == 3 && ctx.attempt() == 1 {
        return Err(TaskError::retry("at first"));
    }
    shared.ended.entry(key).or_default().push(number);
    Ok(())
}

async fn worker(client: &Client, shared: &Shared) -> RunningWorker {
    Worker::builder().client(client).register(book).state(Arc::clone(shared)).start().await.unwrap()
}

#[tokio::test]
async fn one_of_a_key_at_a_time_while_partitions_change_hands() {
    let (client, shared) = (Client::embedded(), Shared::default());
    let first = worker(&client, &shared).await;
    let calls = (0..20).flat_map(|number| (0..30).map(move |key| (format!("k{key}"), number)));
    let calls = calls.map(|(key, number)| book.call(key.clone(), number).ordering_key(key));
    let handles = client.send_many(calls).await;
    let ended = async |count| {
        let ended = || shared.lock().unwrap().ended.values().map(Vec::len).sum::<usize>();
        until(async || (ended() >= count).then_some(())).await;
    };
    ended(100).await;
    let second = worker(&client, &shared).await;
    ended(250).await;
    first.stop().await.unwrap();
    for handle in handles {
        handle.unwrap().wait(Duration::from_secs(30)).await.unwrap();
    }
    second.stop().await.unwrap();
    let seen = shared.lock().unwrap();
    assert!(seen.ended.values().all(|numbers| numbers.iter().copied().eq(0..20)), "{:?}", seen.ended);
    assert!(seen.attempts >= 600 + 150, "every fourth was tried twice: {}", seen.attempts);
}

#[tokio::test]
async fn what_failed_for_good_lets_the_next_one_run_and_is_replayed_at_the_end() {
    let (client, shared) = (Client::embedded(), Shared::default());
    let worker = worker(&client, &shared).await;
    let call = |number| book.call("k".into(), number).ordering_key("k");
    // Number 1 has no turn before number 0, so it fails for good.
    let early = call(1).send(&client).await.unwrap();
    let failed = early.wait(Duration::from_secs(30)).await;
    assert!(matches!(failed, Err(Error::TaskFailed { .. })), "{failed:?}");
    shared.lock().unwrap().running.clear();
    call(0).send(&client).await.unwrap().wait(Duration::from_secs(30)).await.unwrap();
    let replay = async || (client.admin().dead_letters().replay().await.unwrap().replayed == 1).then_some(());
    until(replay).await;
    // The handle of a task that has ended remembers how.
    let again = async || client.admin().task(early.id()).await.unwrap().unwrap().status == Status::Success;
    until(async || again().await.then_some(())).await;
    assert_eq!(shared.lock().unwrap().ended["k"], [0, 1]);
    worker.stop().await.unwrap();
}
