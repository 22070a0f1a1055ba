//! Rate limits, and limits on how many tasks run at once.
//!
//!     cargo run --example limits

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use yadtq::{Client, Error, Worker};

/// The other service accepts ten calls per second, and a burst of three after a quiet time.
#[yadtq::task(rate_limit = "10/s", rate_burst = 3)]
async fn fetch(page: u64) -> u64 {
    page
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// At most two run at once for each customer. Returns how many ran at once.
#[yadtq::task(max_running = 2, limit_key = "customer")]
async fn import(customer: String) -> usize {
    let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
    tokio::time::sleep(Duration::from_millis(200)).await;
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    println!("imported a file of {customer}");
    running
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(fetch).register(import).concurrency(16).start().await?;

    let start = Instant::now();
    for handle in client.send_many((0..23).map(|page| fetch.call(page))).await {
        handle?.await?;
    }
    let took = start.elapsed();
    println!("23 pages took {:.1} s", took.as_secs_f64());

    let mut most = 0;
    for handle in client.send_many((0..5).map(|_| import.call("ada".to_owned()))).await {
        most = most.max(handle?.await?);
    }
    println!("at most {most} imports at once");
    worker.stop().await
}
