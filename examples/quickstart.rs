//! A task, a worker and a client in one process, without any server.
//!
//!     cargo run --example quickstart

use yadtq::{Client, Worker};

#[yadtq::task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[tokio::main]
async fn main() -> Result<(), yadtq::Error> {
    // This has the same API as with Kafka and Redis, but keeps everything in this process's memory.
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register(add).start().await?;

    let handle = add.delay(1, 2).await?;
    println!("sent task {}", handle.id());
    println!("add(1, 2) = {}", handle.await?);

    worker.stop().await?;
    println!();
    println!("Next, with real servers: `eval \"$(cargo xtask services up)\"` starts Kafka and Redis, then");
    println!("`cargo run --example worker` in one terminal and `cargo run --example client` in another.");
    Ok(())
}
