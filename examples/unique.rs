//! Unique calls: repeated calls make only one task.
//!
//!     cargo run --example unique

use std::time::Duration;

use yadtq::{Client, Error, Worker};

#[yadtq::task]
async fn invoice(order: u64) -> String {
    println!("writing the invoice of order {order}");
    format!("invoice {order}")
}

/// Runs at most once an hour for the same arguments, for all callers together.
#[yadtq::task(unique = "1h")]
async fn refresh(page: String) -> usize {
    println!("refreshing {page}");
    page.len()
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register(invoice).register(refresh).start().await?;

    // A customer clicked twice, and each click reached a different server.
    let day = Duration::from_secs(24 * 3_600);
    let first = invoice.call(17).unique("order-17", day).delay().await?;
    let second = invoice.call(17).unique("order-17", day).delay().await?;
    assert_eq!(first.id(), second.id());
    println!("made by the first: {}, by the second: {}", first.is_new(), second.is_new());
    println!("{}, {}", first.await?, second.await?);

    // The arguments are the key, as the task's code says; a call can still ask for a task of its own.
    let page = || "/news".to_owned();
    refresh.delay(page()).await?.await?;
    let again = refresh.delay(page()).await?;
    println!("refreshed again: {}", again.is_new());
    refresh.call(page()).not_unique().delay().await?.await?;
    worker.stop().await
}
