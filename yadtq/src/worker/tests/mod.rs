//! What only a clock that can be moved can show.

mod carry;
mod dead_letters;
mod delays;
mod offers;
mod ordering;
mod periodic;
mod revocations;
mod stopping;

use std::{sync::Arc, time::Duration};

use crate::{
    Client, RunningWorker, Status, TaskHandle, Worker,
    admin::TaskInfo,
    clock::{Clock, ManualClock, SystemClock},
    config::{Config, Embedded, Target},
    core::names::Namespace,
};

/// Never ends, so that a worker that runs it has to cut it off.
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

/// A worker that runs a task which never ends, and what the store says of that task.
struct Stalled {
    clock: Arc<ManualClock>,
    client: Client,
    worker: RunningWorker,
    handle: TaskHandle<()>,
    before: TaskInfo,
}

impl Stalled {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at_us(SystemClock::shared().now_us()));
        let client = client(&clock);
        let worker = Worker::builder().client(&client).register(stall).drain_timeout(Duration::ZERO);
        let worker = worker.start().await.unwrap();
        let handle = stall.call().send(&client).await.unwrap();
        until(async || (handle.status().await.unwrap() == Status::Running).then_some(())).await;
        let before = client.admin().task(handle.id()).await.unwrap().unwrap();
        Self { clock, client, worker, handle, before }
    }

    async fn now(&self) -> TaskInfo {
        self.client.admin().task(self.handle.id()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_worker_that_stood_still_goes_on_as_a_new_one() {
    let stalled = Stalled::new().await;
    stalled.clock.advance(Duration::from_secs(16 * 60));
    let after = until(async || {
        let now = stalled.now().await;
        (now.worker.is_some() && now.worker != stalled.before.worker).then_some(now)
    })
    .await;
    assert_eq!(after.deliveries, 1, "its lease had lapsed without a word");
    stalled.worker.stop().await.unwrap();
    assert_eq!(stalled.handle.status().await.unwrap(), Status::Queued, "handed back by the new one");
}

#[tokio::test]
async fn a_shorter_pause_changes_nothing() {
    let stalled = Stalled::new().await;
    stalled.clock.advance(Duration::from_secs(14 * 60));
    // Two extensions later.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = stalled.now().await;
    assert_eq!((after.worker, after.deliveries), (stalled.before.worker.clone(), 0));
    stalled.worker.stop().await.unwrap();
}
