//! Dead letters: finds tasks that could not run, and replays them when the worker is fixed.
//!
//!     cargo run --example dead_letters

use std::time::Duration;

use yadtq::{Client, Error, Worker};

/// The deployed version: it takes whole euros.
mod broken {
    #[yadtq::task]
    pub async fn pay(to: String, euros: u32) -> String {
        format!("{to} gets {euros} euros")
    }
}

/// The fixed version: it takes cents too.
mod fixed {
    #[yadtq::task]
    pub async fn pay(to: String, euros: f64) -> String {
        format!("{to} gets {euros:.2} euros")
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(broken::pay).start().await?;
    let handle = fixed::pay.call("ada".to_owned(), 12.5).send(&client).await?;
    let id = handle.id().clone();
    match handle.await {
        Err(error) => println!("it failed: {error}"),
        Ok(paid) => println!("unexpected: {paid}"),
    }
    worker.stop().await?;

    // An operator lists dead letters; on the command line with `yadtq dlq list`.
    let letters = || client.admin().dead_letters().task("pay").newer_than(Duration::from_secs(3_600));
    for letter in letters().limit(50).page().await?.letters {
        println!("dead: {} in queue {}", letter.reason, letter.queue.as_deref().unwrap_or("?"));
        println!("its record: {}", String::from_utf8_lossy(letter.value()));
    }

    // The fixed worker can run them; on the command line `yadtq dlq replay --task pay`.
    let worker = Worker::builder().client(&client).register(fixed::pay).start().await?;
    let report = letters().replay().await?;
    println!("replayed {}", report.replayed);
    println!("{}", client.handle::<String>(id).await?);

    // Letters that nobody needs any more are deleted; on the command line with `yadtq dlq purge`.
    println!("purged {}", letters().purge().await?);
    worker.stop().await
}
