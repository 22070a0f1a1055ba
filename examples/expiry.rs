//! Tasks that expire: they are useless if they run too late.
//!
//!     cargo run --example expiry

use std::time::Duration;

use yadtq::{Client, Error, Worker};

/// After a minute nobody waits for this code any more.
#[yadtq::task(expires = "1m")]
async fn send_code(to: String) -> String {
    format!("sent a code to {to}")
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;

    // Both are sent while no worker runs; the second one expires at once.
    let in_time = send_code.delay("ada".to_owned()).await?;
    let too_late = send_code.call("eve".to_owned()).expires_in(Duration::from_millis(10)).send(&client).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;

    let worker = Worker::builder().register(send_code).start().await?;
    println!("{}", in_time.await?);
    match too_late.await {
        Err(Error::Expired { .. }) => println!("no code for eve: it expired before it could run"),
        other => println!("unexpected: {other:?}"),
    }
    worker.stop().await
}
