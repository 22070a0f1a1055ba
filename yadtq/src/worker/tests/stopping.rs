//! What tasks learn before they are dropped, and what a worker does without its runtime.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{stall, until};
use crate::{Client, Context, Error, ErrorKind, State, Status, Worker};

const WAIT: Duration = Duration::from_secs(30);

/// Ends once it is asked to, and notes what it knew then.
#[crate::task(crate = crate)]
async fn heed(ctx: Context, asked: State<Arc<AtomicBool>>) -> bool {
    ctx.stopping().await;
    asked.store(!ctx.is_cancelled(), Ordering::SeqCst);
    ctx.cancelled().await;
    ctx.is_stopping()
}

#[tokio::test]
async fn a_worker_that_stops_says_so_then_asks_and_only_then_drops() {
    let client = Client::embedded();
    let asked = Arc::new(AtomicBool::new(false));
    let worker = Worker::builder().client(&client).register(heed).state(Arc::clone(&asked));
    let worker = worker.drain_timeout(Duration::from_secs(5)).start().await.unwrap();
    let handle = heed.call().send(&client).await.unwrap();
    until(async || (handle.status().await.unwrap() == Status::Running).then_some(())).await;
    worker.stop().await.unwrap();
    assert!(asked.load(Ordering::SeqCst), "it learned of it at once, and was asked to end later");
    assert!(handle.wait(WAIT).await.unwrap(), "it has had time to end");
}

/// Ends once it is asked to.
#[crate::task(crate = crate)]
async fn obey(ctx: Context) -> bool {
    ctx.cancelled().await;
    ctx.is_stopping()
}

#[tokio::test]
async fn a_task_is_asked_to_end_before_its_timeout() {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(obey).start().await.unwrap();
    let call = || obey.call().max_retries(0);
    let handle = call().timeout(Duration::from_secs(4)).send(&client).await.unwrap();
    assert!(!handle.wait(WAIT).await.unwrap(), "after 3.6 s");
    let wrong = call().timeout(Duration::from_secs(2)).soft_timeout(Duration::from_secs(2)).send(&client).await;
    let Err(Error::Config { .. }) = wrong else { panic!("{wrong:?}") };
    worker.stop().await.unwrap();
}

/// Takes this long, on a thread of its own.
#[crate::task(crate = crate)]
fn doze(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[test]
fn a_blocking_task_that_waits_for_a_thread_has_not_begun() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::embedded();
        let worker = Worker::builder().client(&client).register(doze).blocking_concurrency(4).start().await.unwrap();
        // One thread for four: the last begins after 1.5 s.
        let calls = (0..4).map(|_| doze.call(500).timeout(Duration::from_millis(1_400)).max_retries(0));
        for sent in client.send_many(calls).await {
            sent.unwrap().wait(WAIT).await.unwrap();
        }
        let late = doze.call(300).timeout(Duration::from_millis(100)).max_retries(0).send(&client).await.unwrap();
        let Err(Error::TaskFailed { kind, .. }) = late.wait(WAIT).await else { panic!("it takes longer") };
        assert_eq!(kind, ErrorKind::Timeout);
        worker.stop().await.unwrap();
    });
}

#[tokio::test]
async fn a_worker_whose_runtime_is_gone_ends_with_an_error() {
    let client = Client::embedded();
    let tasks = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let worker = Worker::builder().client(&client).register(stall);
    let mut worker = tasks.spawn(worker.start()).await.unwrap().unwrap();
    let handle = stall.call().send(&client).await.unwrap();
    until(async || (handle.status().await.unwrap() == Status::Running).then_some(())).await;
    tasks.shutdown_background();
    let ended = tokio::time::timeout(WAIT, worker.ended()).await.unwrap();
    let Err(Error::Worker { detail }) = ended else { panic!("{ended:?}") };
    assert!(detail.contains("runtime"), "{detail}");
    let info = client.admin().task(handle.id()).await.unwrap().unwrap();
    assert_eq!((info.status, info.deliveries), (Status::Queued, 0), "anybody may run it");
}

/// Panics when it is dropped.
struct Spiteful;

impl Drop for Spiteful {
    fn drop(&mut self) {
        panic!("and again");
    }
}

#[crate::task(crate = crate)]
async fn spite() {
    std::panic::panic_any(Spiteful);
}

#[tokio::test]
async fn a_panic_that_panics_when_it_is_dropped_fails_its_task_alone() {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(spite).register(obey).start().await.unwrap();
    let handle = spite.call().max_retries(0).send(&client).await.unwrap();
    let Err(Error::TaskFailed { kind, .. }) = handle.wait(WAIT).await else { panic!("it panics") };
    assert_eq!(kind, ErrorKind::Panic);
    let other = obey.call().timeout(Duration::from_secs(1)).send(&client).await.unwrap();
    assert!(!other.wait(WAIT).await.unwrap(), "the worker goes on");
    worker.stop().await.unwrap();
}
