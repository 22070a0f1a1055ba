//! Controls for emergencies: pause a queue, purge it, disable a task.
//!
//!     cargo run --example queue_control

use std::time::Duration;

use yadtq::{Client, Error, RunningWorker, Worker, admin::Disabled};

#[yadtq::task(queue = "mail")]
async fn send_email(to: String) -> String {
    format!("sent to {to}")
}

#[yadtq::task(queue = "mail")]
async fn count_emails() -> u64 {
    3
}

async fn worker(client: &Client) -> Result<RunningWorker, Error> {
    Worker::builder().client(client).register(send_email).register(count_emails).start().await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let admin = client.admin();

    // Workers apply a new control within two seconds; a control that is older than the worker applies from its start.
    admin.pause("mail").await?;
    let running = worker(&client).await?;
    let waiting = send_email.call("ada".to_owned()).send(&client).await?;
    match waiting.wait(Duration::from_millis(300)).await {
        Err(Error::WaitTimeout { .. }) => println!("mail is paused, and ada's waits"),
        other => println!("this should have waited: {other:?}"),
    }

    println!("purged {} task", admin.purge("mail").await?);
    println!("{}", waiting.await.expect_err("it was purged"));

    let later = send_email.call("eve".to_owned()).send(&client).await?;
    admin.resume("mail").await?;
    println!("{}", later.await?);

    // This also holds for a disabled task.
    running.stop().await?;
    admin.disable_task("send_email", Disabled::DeadLetter).await?;
    let running = worker(&client).await?;
    let disabled = send_email.call("bob".to_owned()).send(&client).await?;
    println!("{}", disabled.await.expect_err("it is disabled"));
    println!("others run: {}", count_emails.call().send(&client).await?.await?);
    admin.enable_task("send_email").await?;
    running.stop().await
}
