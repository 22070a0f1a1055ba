//! Tasks that make no sense any more when they come too late.
//!
//!     cargo run --example expiry

use std::time::Duration;

use yadtq::{Client, Error, Worker};

/// A code that nobody waits for after a minute.
#[yadtq::task(expires = "1m")]
async fn send_code(to: String) -> String {
    format!("sent a code to {to}")
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;

    // Sent while no worker runs, and the second one for a moment only.
    let patient = send_code.delay("ada".to_owned()).await?;
    let hasty = send_code.call("eve".to_owned()).expires_in(Duration::from_millis(10)).send(&client).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;

    let worker = Worker::builder().register(send_code).start().await?;
    println!("{}", patient.await?);
    match hasty.await {
        Err(Error::Revoked { reason, .. }) => println!("no code for eve: {reason}"),
        other => println!("unexpected: {other:?}"),
    }
    worker.stop().await
}
