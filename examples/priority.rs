//! Priorities: tasks that overtake others in their queue.
//!
//!     cargo run --example priority

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use yadtq::{Client, Context, Error, MissingState, Priority, Worker};

/// The priorities of the tasks that ran, in order, one letter each.
type Order = Arc<Mutex<String>>;

#[yadtq::task(priority = "low")]
async fn reindex(ctx: Context, page: u64, letter: String) -> Result<u64, MissingState> {
    ctx.state::<Order>()?.lock().unwrap_or_else(PoisonError::into_inner).push_str(&letter);
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(page)
}

/// Sends thirty tasks of each priority, the low ones first, and returns the order in which a worker ran them.
async fn order(strict: bool) -> Result<String, Error> {
    let client = Client::embedded();
    let mut handles = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        let letter = priority.as_str()[..1].to_uppercase();
        for page in 0..30 {
            handles.push(reindex.call(page, letter.clone()).priority(priority).send(&client).await?);
        }
    }
    let order = Order::default();
    let worker = Worker::builder().client(&client).register(reindex).state(Arc::clone(&order));
    let worker = worker.concurrency(1).strict_priority(strict).start().await?;
    for handle in handles {
        handle.await?;
    }
    worker.stop().await?;
    let order = order.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(order)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("by weights: {}", order(false).await?);
    println!("strictly:   {}", order(true).await?);
    Ok(())
}
