//! Plain functions as tasks: they run on the blocking pool, by default as many at once as there are cores, and never block
//! `async` tasks.
//!
//!     cargo run --example blocking

use std::{thread, time::Duration};

use yadtq::{Client, Context, Worker};

/// A function that is not `async` may compute for long or call libraries that block.
#[yadtq::task]
fn largest_prime_below(limit: u64) -> Option<u64> {
    (2..limit).rev().find(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0))
}

/// A blocking function cannot be interrupted. It is asked to stop a little before its timeout. If it goes on, it keeps its slot and
/// its lease until it returns, and has failed.
#[yadtq::task(timeout = "200ms", max_retries = 0)]
fn overrun(ctx: Context) -> String {
    while !ctx.is_cancelled() {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(100)); // too much to tidy up
    "asked to stop".to_owned()
}

#[yadtq::task]
async fn tick() -> String {
    "async tasks go on".to_owned()
}

#[tokio::main]
async fn main() -> Result<(), yadtq::Error> {
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder()
        .register(largest_prime_below)
        .register(overrun)
        .register(tick)
        .blocking_concurrency(2)
        .start()
        .await?;
    let prime = largest_prime_below.delay(1_000_000).await?;
    let waiting = overrun.delay().await?;
    println!("{}", tick.delay().await?.await?);
    println!("the largest prime below a million is {:?}", prime.await?);
    println!("{}", waiting.await.expect_err("its timeout is over"));
    worker.stop().await
}
