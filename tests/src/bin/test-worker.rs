//! A worker process for the tests: configured by the environment, logs as JSON lines on stdout.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use yadtq::{Error, Periodic, Retry, Worker};
use yadtq_tests::{
    soak::{self, Soak},
    tasks::{self, Record},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = env::var("RUST_LOG").unwrap_or_else(|_| "info,yadtq=debug".to_owned());
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    let threads = env::var("TEST_THREADS").map_or(Ok(2), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    Ok(runtime.block_on(work())?)
}

async fn work() -> Result<(), Error> {
    let path = env::var_os("TEST_RECORD").map_or_else(|| PathBuf::from("/dev/null"), PathBuf::from);
    let record = Arc::new(Record::open(&path).expect("the record can be opened"));
    let mut worker = Worker::builder()
        .register(tasks::add)
        .register(tasks::noted)
        .register(tasks::nap)
        .register(tasks::doze)
        .register(tasks::hog)
        .register(tasks::crash)
        .register(tasks::fail)
        .register(tasks::panic)
        .register(tasks::dawdle)
        .register(tasks::heed)
        .register(tasks::echo)
        .register(tasks::nested)
        .register(tasks::stateless)
        .register(tasks::brief)
        .register(tasks::obey)
        .register(tasks::tick)
        .register(tasks::count)
        .register(tasks::flood)
        .register(tasks::overdo)
        .register(tasks::once)
        .register(tasks::flaky)
        .register(tasks::fail_slowly)
        .register(tasks::picky)
        .register(tasks::steered)
        .register(tasks::sleepy)
        .register(tasks::punctual)
        .register(tasks::book)
        .register(tasks::paced)
        .register(tasks::per_user)
        .register(tasks::few)
        // A test does not wait for an hour.
        .retry(Retry::new().max(3).base(Duration::from_secs(1)))
        .state(Arc::clone(&record));
    if let Ok(ms) = env::var("TEST_UNKNOWN_MS") {
        worker = worker.unknown_task_window(Duration::from_millis(ms.parse().expect("TEST_UNKNOWN_MS is a number")));
    }
    if let Ok(slots) = env::var("TEST_SLOTS") {
        worker = worker.concurrency(slots.parse().expect("TEST_SLOTS is a number"));
    }
    if let Ok(queues) = env::var("TEST_QUEUES") {
        worker = worker.queues(queues.split(','));
    }
    if env::var_os("TEST_STRICT").is_some() {
        worker = worker.strict_priority(true);
    }
    if let Ok(ms) = env::var("TEST_LEASE_MS") {
        worker = worker.lease(Duration::from_millis(ms.parse().expect("TEST_LEASE_MS is a number")));
    }
    if let Ok(ms) = env::var("TEST_DRAIN_MS") {
        worker = worker.drain_timeout(Duration::from_millis(ms.parse().expect("TEST_DRAIN_MS is a number")));
    }
    // `name missed seconds`, comma separated.
    for declared in env::var("TEST_PERIODIC").unwrap_or_default().split_terminator(',') {
        let [name, missed, seconds] = declared.split(' ').collect::<Vec<_>>()[..] else {
            panic!("TEST_PERIODIC has `{declared}`")
        };
        let interval = Duration::from_secs(seconds.parse().expect("TEST_PERIODIC has seconds"));
        let missed = missed.parse().expect("TEST_PERIODIC says what becomes of missed ticks");
        worker = worker.periodic(Periodic::every(name, interval, tasks::tick.call()).missed(missed));
    }
    if let Some(directory) = env::var_os("TEST_SOAK") {
        worker = soak::register(worker, Soak::open(directory.as_ref()).expect("the journal can be opened"));
    }
    worker.run().await?;
    record.flush().expect("the record can be written");
    Ok(())
}
