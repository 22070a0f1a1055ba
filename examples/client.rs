//! Sends tasks to the `worker` example, and prints their results.
//!
//!     cargo run --example client

use std::time::Duration;

use yadtq::{Call, Client};
use yadtq_examples::{add, greet};

#[tokio::main]
async fn main() -> Result<(), yadtq::Error> {
    let client = Client::from_env().await?;
    client.install()?;

    // The short form uses the installed client.
    let sum = add.delay(1, 2).await?;
    println!("add(1, 2) = {}", sum.wait(Duration::from_secs(60)).await?);

    // A call can have options.
    let greeting = greet.call("Ada".to_owned()).timeout(Duration::from_secs(1)).send(&client).await?;
    println!("greet(\"Ada\") = {}", greeting.wait(Duration::from_secs(60)).await?);

    // Send many tasks at once.
    let mut total = 0;
    for handle in client.send_many((0..1_000).map(|i| add.call(i, 1))).await {
        total += handle?.await?;
    }
    println!("a thousand sums add up to {total}");

    // Send without the code of the task, by name; get the result later by id, in any process.
    let sent = Call::<i64>::named("add", (20, 22)).send(&client).await?;
    let found = client.handle::<i64>(sent.id().clone());
    println!("task {} = {}", found.id(), found.wait(Duration::from_secs(60)).await?);
    Ok(())
}
