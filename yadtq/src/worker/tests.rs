//! What only a clock that can be moved can show.

use std::{sync::Arc, time::Duration};

use crate::{
    Client, Status, Worker,
    clock::{Clock, ManualClock, SystemClock},
    config::{Config, Embedded, Target},
    core::names::Namespace,
};

/// Goes on for ever, so that whoever holds it has to be cut off.
#[crate::task(crate = crate)]
async fn stall() {
    std::future::pending::<()>().await;
}

fn client(clock: &Arc<ManualClock>) -> Client {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let config = Config {
        target: Target::Embedded(Embedded::new(&Namespace::default(), Arc::clone(&clock))),
        namespace: Namespace::default(),
        max_record_bytes: 1_000,
        clock,
    };
    Client::open(config).unwrap()
}

async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap()
}

#[tokio::test]
async fn a_worker_that_stood_still_goes_on_as_a_new_one() {
    let clock = Arc::new(ManualClock::at_us(SystemClock::shared().now_us()));
    let client = client(&clock);
    let worker = Worker::builder().client(&client).register(stall).drain_timeout(Duration::ZERO).start().await.unwrap();
    let handle = stall.call().send(&client).await.unwrap();
    until(async || (handle.status().await.unwrap() == Status::Running).then_some(())).await;
    let before = client.admin().task(handle.id()).await.unwrap().unwrap();

    clock.advance(Duration::from_secs(16 * 60));
    let after = until(async || {
        let now = client.admin().task(handle.id()).await.unwrap()?;
        (now.worker.is_some() && now.worker != before.worker).then_some(now)
    })
    .await;
    assert_eq!(after.deliveries, 1, "its lease had lapsed without a word");
    worker.stop().await.unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Queued, "handed back by the new one");
}

#[tokio::test]
async fn a_shorter_pause_changes_nothing() {
    let clock = Arc::new(ManualClock::at_us(SystemClock::shared().now_us()));
    let client = client(&clock);
    let worker = Worker::builder().client(&client).register(stall).drain_timeout(Duration::ZERO).start().await.unwrap();
    let handle = stall.call().send(&client).await.unwrap();
    until(async || (handle.status().await.unwrap() == Status::Running).then_some(())).await;
    let before = client.admin().task(handle.id()).await.unwrap().unwrap();
    clock.advance(Duration::from_secs(14 * 60));
    // Two extensions later.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = client.admin().task(handle.id()).await.unwrap().unwrap();
    assert_eq!((after.worker, after.deliveries), (before.worker, 0));
    worker.stop().await.unwrap();
}
