//! Retries: the task's options and its errors decide what follows a failed attempt.
//!
//!     cargo run --example retries

use std::time::Duration;

use yadtq::{Client, Context, Error, Retry, TaskError, Worker};

/// A server that is busy at first.
#[yadtq::task(max_retries = 5, retry_base = "100ms")]
async fn fetch(ctx: Context, url: String) -> Result<String, TaskError> {
    if let Some(error) = ctx.last_error() {
        println!("attempt {} of {url}, because: {}", ctx.attempt(), error.message);
    }
    match ctx.attempt() {
        1 => Err(TaskError::new("no route")),
        // The server's Retry-After header says when to try again.
        2 => Err(TaskError::retry_after("too many requests", Duration::from_millis(200))),
        _ => Ok(format!("<html>{url}</html>")),
    }
}

#[derive(Debug, thiserror::Error)]
enum CardError {
    #[error("the bank does not answer")]
    Unreachable,
    #[error("card {0} was declined")]
    Declined(String),
}

impl CardError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable)
    }
}

/// A retry can help with one of its errors, but not with the other.
#[yadtq::task(retry_if = CardError::is_transient)]
async fn charge(ctx: Context, card: String) -> Result<(), CardError> {
    match ctx.attempt() {
        1 => Err(CardError::Unreachable),
        _ => Err(CardError::Declined(card)),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register(fetch).register(charge).retry(Retry::new().base(Duration::from_millis(50)));
    let worker = worker.start().await?;

    println!("{}", fetch.delay("example.org".to_owned()).await?.await?);
    for handle in
        [charge.delay("4111".to_owned()).await?, charge.call("4112".to_owned()).max_retries(0).send(&client).await?]
    {
        match handle.await {
            Err(Error::TaskFailed { message, attempts, .. }) => {
                println!("failed after {attempts} attempt(s): {message}")
            }
            other => println!("unexpected: {other:?}"),
        }
    }
    worker.stop().await
}
