//! Tasks that run later: after a delay, or when they snooze. They can be listed, run at once, and revoked.
//!
//!     cargo run --example delays

use std::time::Duration;

use yadtq::{Client, Context, Error, TaskError, Worker};

#[yadtq::task]
async fn remind(whom: String) -> String {
    format!("remember, {whom}!")
}

/// Snoozes until the order is packed. Its slot is free in the meantime, and it remains the first attempt.
#[yadtq::task]
async fn ship(ctx: Context, order: u64, packed_at_ms: u64) -> Result<String, TaskError> {
    if now_ms() < packed_at_ms {
        return Err(TaskError::snooze(Duration::from_millis(100)));
    }
    Ok(format!("order {order} left at attempt {}", ctx.attempt()))
}

#[allow(clippy::disallowed_methods)]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register(remind).register(ship).start().await?;

    let soon = remind.call("Ada".to_owned()).countdown(Duration::from_millis(300)).send(&client).await?;
    println!("status: {}", soon.status().await?);
    println!("{}", soon.await?);

    let packed_at_ms = now_ms() + 250;
    println!("{}", ship.delay(17, packed_at_ms).await?.await?);

    // A delay can be very long: these tasks wait in Kafka, not in memory.
    let year = Duration::from_secs(365 * 24 * 3_600);
    let far = remind.call("Grace".to_owned()).countdown(10 * year).send(&client).await?;
    let never = remind.call("Eve".to_owned()).countdown(20 * year).send(&client).await?;
    for task in client.admin().scheduled(10).await?.tasks {
        println!("{} waits in {}", task.task, task.queue);
    }
    client.admin().run_now(far.id()).await?;
    println!("{}", far.await?);
    never.revoke().await?;
    match never.await {
        Err(Error::Revoked { .. }) => println!("no reminder for Eve: it was revoked"),
        other => println!("unexpected: {other:?}"),
    }
    worker.stop().await
}
