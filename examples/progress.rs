//! A task that reports its progress, and a caller that listens.
//!
//!     cargo run --example progress

use std::time::Duration;

use serde::{Deserialize, Serialize};
use yadtq::{Client, Context, Error, Worker};

/// Progress can be any value that serializes.
#[derive(Debug, Serialize, Deserialize)]
struct Imported {
    rows: usize,
    of: usize,
}

#[yadtq::task]
async fn import(ctx: Context, file: String, rows: usize) -> String {
    for row in 1..=rows {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // This is cheap, so report as often as you like. Listeners get the latest value, at most ten times a second.
        ctx.progress(Imported { rows: row, of: rows });
    }
    format!("{file} is imported")
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register(import).start().await?;

    let handle = import.delay("rows.csv".to_owned(), 50).await?;
    // Any process that knows the id can listen: client.handle::<String>(id).progress::<Imported>()
    let mut progress = handle.progress::<Imported>();
    while let Some(imported) = progress.next().await {
        let Imported { rows, of } = imported?;
        println!("{rows} of {of} rows");
    }
    println!("{}", handle.await?);
    worker.stop().await
}
