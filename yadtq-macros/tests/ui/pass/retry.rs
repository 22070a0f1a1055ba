//! What decides whether and when a task is tried again.

use std::time::Duration;

use yadtq::{Retry, Task, TaskError};

#[derive(Debug, thiserror::Error)]
enum MailError {
    #[error("busy")]
    Busy,
    #[error("no such address")]
    Address,
}

impl MailError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

#[yadtq::task(max_retries = 5, retry_base = "2s", retry_cap = "1m", retry_if = MailError::is_transient)]
async fn send(to: String) -> Result<u8, MailError> {
    if to.is_empty() { Err(MailError::Address) } else { Err(MailError::Busy) }
}

type Outcome = Result<String, anyhow::Error>;

#[yadtq::task(retry_if = worth_it)]
fn blocking() -> Outcome {
    Ok(String::new())
}

fn worth_it(error: &anyhow::Error) -> bool {
    error.is::<std::io::Error>()
}

#[yadtq::task(max_retries = 0)]
async fn steered(number: String) -> Result<u8, TaskError> {
    if number == "later" {
        return Err(TaskError::snooze(Duration::from_secs(1)));
    }
    let busy: Result<(), MailError> = Err(MailError::Busy);
    busy.map_err(TaskError::retry)?;
    Err(MailError::Busy).map_err(|error| TaskError::retry_after(error, Duration::from_secs(1)))?;
    Err("text").map_err(TaskError::fatal)?;
    number.parse().map_err(TaskError::fatal)
}

fn main() {
    let expected = Retry::new().max(5).base(Duration::from_secs(2)).cap(Duration::from_secs(60));
    assert_eq!(send.definition().retry(), expected);
    assert_eq!(blocking.definition().retry(), Retry::new());
    assert_eq!(steered.definition().retry(), Retry::never());
}
