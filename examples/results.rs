//! How long results are kept, and tasks whose results are not kept.
//!
//!     cargo run --example results

use std::time::Duration;

use yadtq::{Client, Error, Worker};

/// Keeps its results for a week, unless a caller overrides it.
#[yadtq::task(result_ttl = "7d")]
async fn report(month: u32) -> String {
    format!("report of month {month}")
}

/// Nobody needs this result: `0s` keeps none, which saves memory in Redis.
#[yadtq::task(result_ttl = "0s")]
async fn warm_cache(keys: u32) -> u32 {
    keys
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    let day = Duration::from_secs(24 * 3_600);
    let worker = Worker::builder().register(report).register(warm_cache).result_ttl(day).start().await?;

    println!("{}", report.delay(1).await?.await?);

    // The caller overrides the task.
    let short = report.call(2).result_ttl(Duration::from_secs(3_600)).send(&client).await?;
    println!("{}, for an hour", short.await?);
    let ignored = report.call(3).ignore_result().send(&client).await?;
    println!("{}", ignored.await.expect_err("it was not kept"));

    match warm_cache.delay(10).await?.await {
        Err(Error::NoResult { .. }) => println!("the cache is warm, and nothing was kept"),
        other => println!("unexpected: {other:?}"),
    }
    worker.stop().await
}
