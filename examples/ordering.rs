//! Tasks of one customer run in the order in which they were sent, independently of other customers.
//!
//!     cargo run --example ordering

use std::time::Duration;

use yadtq::{Client, Context, Error, Worker};

#[yadtq::task(retry_base = "20ms")]
async fn book(ctx: Context, customer: String, cents: i64) -> Result<i64, String> {
    if cents == 200 && ctx.attempt() == 1 {
        println!("{customer}: {cents} fails, and is tried again in its place");
        return Err("the bank does not answer".to_owned());
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    println!("{customer}: {cents}");
    Ok(cents)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(book).start().await?;

    let bookings = [("ada", 100), ("bob", 1_000), ("ada", 200), ("ada", 300), ("bob", 2_000)];
    let calls = bookings.map(|(customer, cents)| book.call(customer.to_owned(), cents).ordering_key(customer));
    for handle in client.send_many(calls).await {
        handle?.await?;
    }

    // Options that contradict the order are refused.
    let refused = book.call("ada".to_owned(), 400).ordering_key("ada").countdown(Duration::from_secs(60));
    println!("refused: {}", refused.send(&client).await.expect_err("it contradicts itself"));
    worker.stop().await
}
