//! The context of a task, and state that tasks share.
//!
//!     cargo run --example context_state

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use yadtq::{Client, Context, MissingState, Worker};

/// Shared state; in a real program a connection pool, an HTTP client or a cache.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HashMap<String, u64>>>);

/// The context is the first parameter. It is not an argument: callers do not send it.
#[yadtq::task]
async fn deposit(ctx: Context, account: String, amount: u64) -> Result<u64, MissingState> {
    let ledger = ctx.state::<Ledger>()?;
    // The id is the same in every run of this task, and the token grows with every run: together they make
    // writes to other systems safe to repeat.
    println!("task {} of queue {}, attempt {}, fence token {}", ctx.id(), ctx.queue(), ctx.attempt(), ctx.token());
    let mut accounts = ledger.0.lock().unwrap_or_else(PoisonError::into_inner);
    let balance = accounts.entry(account).or_default();
    *balance += amount;
    Ok(*balance)
}

/// A long task checks whether it should stop: shortly before its timeout or the end of its worker, or when its lease is lost.
#[yadtq::task(timeout = "300ms")]
async fn count(ctx: Context) -> u64 {
    let mut counted = 0;
    while !ctx.is_cancelled() && counted < 1_000 {
        counted += 1;
        tokio::task::yield_now().await;
    }
    counted
}

/// A task that is asked to end before its timeout returns what it has until then.
#[yadtq::task(timeout = "10s", soft_timeout = "100ms")]
async fn crawl(ctx: Context) -> u64 {
    let mut pages = 0;
    loop {
        tokio::select! {
            () = ctx.cancelled() => return pages,
            () = tokio::time::sleep(Duration::from_millis(10)) => pages += 1,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A task is a function: its body can be tested without a worker.
    let ctx = Context::for_test().with_state(Ledger::default());
    assert_eq!(deposit.run(ctx, "ada".to_owned(), 5).await?, 5);

    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register(deposit).register(count).register(crawl).state(Ledger::default());
    let worker = worker.start().await?;
    for amount in [10, 20, 30] {
        let balance = deposit.delay("ada".to_owned(), amount).await?.await?;
        println!("ada has {balance}");
    }
    println!("counted to {}", count.delay().await?.await?);
    println!("saved {} pages within the soft timeout", crawl.delay().await?.await?);
    worker.stop().await?;
    Ok(())
}
