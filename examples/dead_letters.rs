//! Tasks that could not be run: found, and run again once the worker is mended.
//!
//!     cargo run --example dead_letters

use std::time::Duration;

use yadtq::{Client, Error, Worker};

/// As it was deployed: it takes whole euros.
mod first {
    #[yadtq::task]
    pub async fn pay(to: String, euros: u32) -> String {
        format!("{to} gets {euros} euros")
    }
}

/// As it was mended: it takes cents as well.
mod mended {
    #[yadtq::task]
    pub async fn pay(to: String, euros: f64) -> String {
        format!("{to} gets {euros:.2} euros")
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(first::pay).start().await?;
    let handle = mended::pay.call("ada".to_owned(), 12.5).send(&client).await?;
    let id = handle.id().clone();
    match handle.await {
        Err(error) => println!("it failed: {error}"),
        Ok(paid) => println!("unexpected: {paid}"),
    }
    worker.stop().await?;

    // An operator looks; `yadtq dlq list` on the command line.
    let letters = || client.admin().dead_letters().task("pay").newer_than(Duration::from_secs(3_600));
    for letter in letters().limit(50).page().await?.letters {
        println!("dead: {} in queue {}", letter.reason, letter.queue.as_deref().unwrap_or("?"));
        println!("its record: {}", String::from_utf8_lossy(letter.value()));
    }

    // The mended worker is there, so they can run; `yadtq dlq replay --task pay`.
    let worker = Worker::builder().client(&client).register(mended::pay).start().await?;
    let report = letters().replay().await?;
    println!("replayed {}", report.replayed);
    println!("{}", client.handle::<String>(id).await?);

    // What nobody wants any more is forgotten; `yadtq dlq purge`.
    println!("purged {}", letters().purge().await?);
    worker.stop().await
}
