//! How tasks fail, and which errors their callers get.
//!
//!     cargo run --example errors

use std::time::Duration;

use yadtq::{Client, Error, ErrorKind, Retry, TaskError, Worker};

/// A task can return any error type: from `thiserror` or `anyhow`, `String`, `Box<dyn Error>`.
#[derive(Debug, thiserror::Error)]
#[error("{account} has {balance}, which is less than {amount}")]
struct Overdrawn {
    account: String,
    balance: u64,
    amount: u64,
}

#[yadtq::task]
async fn withdraw(account: String, amount: u64) -> Result<u64, Overdrawn> {
    let balance: u64 = 100;
    balance.checked_sub(amount).ok_or(Overdrawn { account, balance, amount })
}

/// `TaskError` can name the kind of error, so that callers do not have to parse messages.
#[yadtq::task]
async fn charge(card: String) -> Result<(), TaskError> {
    let digits: u64 = card.parse()?;
    Err(TaskError::new(format!("card {digits} was declined")).kind("card-declined"))
}

#[yadtq::task]
async fn divide(a: i64, b: i64) -> i64 {
    a / b
}

#[yadtq::task(timeout = "100ms")]
async fn slow() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    // There are no retries here; see the example `retries`.
    let worker = Worker::builder().register(withdraw).register(charge).register(divide).register(slow);
    let worker = worker.retry(Retry::never()).start().await?;

    println!("withdrawn, left: {}", withdraw.delay("ada".to_owned(), 30).await?.await?);
    print("withdraw", withdraw.delay("ada".to_owned(), 300).await?.await);
    print("charge", charge.delay("not a number".to_owned()).await?.await);
    print("charge", charge.delay("4111".to_owned()).await?.await);
    print("divide", divide.delay(1, 0).await?.await);
    print("slow", slow.delay().await?.await);

    worker.stop().await
}

fn print<T>(task: &str, result: Result<T, Error>) {
    match result {
        Ok(_) => println!("{task} succeeded"),
        Err(Error::TaskFailed { kind: ErrorKind::Panic, message, .. }) => println!("{task} panicked: {message}"),
        Err(Error::TaskFailed { kind, message, attempts, .. }) => {
            println!("{task} failed at attempt {attempts} with kind `{kind}`: {message}");
        }
        Err(other) => println!("{task} has no answer: {other}"),
    }
}
