//! The tasks of the test worker.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use yadtq::{Context, MissingState, TaskError};

/// Writes every execution to a file, one task id per line.
#[derive(Debug)]
pub struct Record(Mutex<BufWriter<File>>);

impl Record {
    /// Appends to the file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(BufWriter::new(file))))
    }

    fn note(&self, ctx: &Context) -> std::io::Result<()> {
        writeln!(self.0.lock().unwrap_or_else(PoisonError::into_inner), "{}", ctx.id())
    }

    /// Appends a line immediately, so that the lines of all processes are in the order of events.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn line(&self, line: &str) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{line}")?;
        file.flush()
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&self) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Adds two numbers, and writes down that it ran.
#[yadtq::task]
pub async fn add(ctx: Context, a: i64, b: i64) -> Result<i64, TaskError> {
    ctx.state::<std::sync::Arc<Record>>()?.note(&ctx)?;
    Ok(a + b)
}

/// Writes down that it ran, so that a killed worker has written it too.
#[yadtq::task]
pub async fn noted(ctx: Context) -> Result<(), TaskError> {
    Ok(ctx.state::<std::sync::Arc<Record>>()?.line(ctx.id().as_str())?)
}

/// Sleeps.
#[yadtq::task]
pub async fn nap(ms: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    ms
}

/// Sleeps on the blocking pool.
#[yadtq::task]
pub fn doze(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// Blocks its thread of the runtime, which no task should do.
#[yadtq::task]
pub async fn hog(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// Kills the worker that runs it.
#[yadtq::task]
pub async fn crash() {
    std::process::abort();
}

/// Fails.
#[yadtq::task(max_retries = 0)]
pub async fn fail(message: String) -> Result<(), String> {
    Err(message)
}

/// Panics.
#[yadtq::task(max_retries = 0)]
pub async fn panic(message: String) {
    panic!("{message}");
}

/// Runs into its timeout of 200 ms.
#[yadtq::task(timeout = "200ms", max_retries = 0)]
pub async fn dawdle() {
    std::future::pending::<()>().await;
}

/// Is asked to end after 200 ms, and then returns whether it was.
#[yadtq::task(soft_timeout = "200ms")]
pub async fn heed(ctx: Context) -> bool {
    ctx.cancelled().await;
    ctx.is_cancelled()
}

/// Returns its argument.
#[yadtq::task]
pub async fn echo(value: serde_json::Value) -> serde_json::Value {
    value
}

/// Uses the worker's client.
#[yadtq::task]
pub async fn nested(ms: u64) -> Result<u64, yadtq::Error> {
    nap.delay(ms).await?.await
}

/// Asks for shared state that the worker does not have.
#[yadtq::task(max_retries = 0)]
pub async fn stateless(ctx: Context) -> Result<u8, MissingState> {
    ctx.state::<u8>().copied()
}

/// Keeps its results for two hours.
#[yadtq::task(result_ttl = "2h")]
pub async fn brief(value: u8) -> u8 {
    value
}

/// Runs until it is asked to stop, and then returns an error that says so.
#[yadtq::task]
pub async fn obey(ctx: Context) -> Result<(), String> {
    ctx.cancelled().await;
    Err("asked to end".to_owned())
}

/// Counts one step every `ms`, and reports its progress.
#[yadtq::task]
pub async fn count(ctx: Context, to: u64, ms: u64) -> u64 {
    for step in 1..=to {
        ctx.progress(step);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    to
}

/// Reports progress faster than anybody can receive it, then waits until it is asked to stop.
#[yadtq::task]
pub fn flood(ctx: Context, reports: u64) -> Result<(), String> {
    (1..=reports).for_each(|report| ctx.progress(report));
    while !ctx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Err("asked to end".to_owned())
}

/// Reports a progress value that is larger than the limit.
#[yadtq::task]
pub async fn overdo(ctx: Context) -> u8 {
    for _ in 0..100 {
        ctx.progress("x".repeat(Context::MAX_PROGRESS_BYTES));
    }
    1
}

/// Unique by its argument for an hour.
#[yadtq::task(unique = "1h")]
pub async fn once(fields: std::collections::BTreeMap<String, u8>) -> i64 {
    fields.values().copied().map(i64::from).sum()
}

/// Writes down immediately that it ran, because its worker may be killed.
#[yadtq::task]
pub async fn tick(ctx: Context) -> Result<(), TaskError> {
    let record = ctx.state::<std::sync::Arc<Record>>()?;
    record.note(&ctx)?;
    Ok(record.flush()?)
}

/// Fails at its first attempts, and then returns the number of the attempt and the error of the one before.
#[yadtq::task(retry_base = "50ms")]
pub async fn flaky(ctx: Context, failures: u32) -> Result<(u32, String), String> {
    match ctx.attempt() {
        attempt if attempt <= failures => Err(format!("attempt {attempt} failed")),
        attempt => Ok((attempt, ctx.last_error().map(|error| error.message.clone()).unwrap_or_default())),
    }
}

/// Fails with this error.
#[yadtq::task(max_retries = 2, retry_base = "20ms", retry_if = is_odd)]
pub async fn picky(error: u32) -> Result<(), OddError> {
    Err(OddError(error))
}

/// An error with a number.
#[derive(Debug, thiserror::Error)]
#[error("error {0}")]
pub struct OddError(u32);

fn is_odd(error: &OddError) -> bool {
    error.0 % 2 == 1
}

/// Fails as `how` says: `fatal`, `after`, or anything else to succeed at the second attempt.
#[yadtq::task(max_retries = 1, retry_base = "20ms")]
pub async fn steered(ctx: Context, how: String) -> Result<u32, TaskError> {
    match (how.as_str(), ctx.attempt()) {
        ("fatal", _) => Err(TaskError::fatal("no use")),
        ("after", 1) => Err(TaskError::retry_after("later", Duration::from_secs(1))),
        (_, 1) => Err(TaskError::retry("again")),
        (_, attempt) => Ok(attempt),
    }
}

/// Snoozes until a file exists, then returns the number of its attempt.
#[yadtq::task(max_retries = 0)]
pub async fn sleepy(ctx: Context, file: std::path::PathBuf) -> Result<u32, TaskError> {
    if file.exists() { Ok(ctx.attempt()) } else { Err(TaskError::snooze(Duration::from_millis(200))) }
}

/// Returns how late it runs, in ms.
#[yadtq::task]
pub async fn punctual(due_ms: u64) -> i64 {
    i64::try_from(crate::now_ms()).unwrap_or(i64::MAX) - i64::try_from(due_ms).unwrap_or(0)
}

/// Fails at its first attempts, after `ms` each.
#[yadtq::task]
pub async fn fail_slowly(ctx: Context, ms: u64, failures: u32) -> Result<(u32, String), String> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    match ctx.attempt() {
        attempt if attempt <= failures => Err("not yet".to_owned()),
        attempt => Ok((attempt, ctx.last_error().map(|error| error.message.clone()).unwrap_or_default())),
    }
}

/// Writes down its start and its end, and fails at its first attempts: for good, if no attempt is left.
#[yadtq::task(max_retries = 1, retry_base = "50ms")]
pub async fn book(ctx: Context, key: u32, number: u32, ms: u64, failures: u32) -> Result<u32, TaskError> {
    let record = ctx.state::<std::sync::Arc<Record>>()?;
    let note = |what: &str| record.line(&format!("{what} {key} {number} {} {}", ctx.attempt(), std::process::id()));
    note("start")?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    if ctx.attempt() > failures {
        note("end")?;
        return Ok(number);
    }
    note(if ctx.attempt() > 1 { "dead" } else { "fail" })?;
    Err(TaskError::retry("a failure that the test asked for"))
}

/// Starts at most fifty times a second over all workers.
#[yadtq::task(rate_limit = "50/s", rate_burst = 5)]
pub async fn paced(n: u64) -> u64 {
    n
}

/// Starts at most twenty times a second for each user.
#[yadtq::task(rate_limit = "20/s", limit_key = "user")]
pub async fn per_user(n: u64, user: String) -> u64 {
    n + u64::try_from(user.len()).unwrap_or(0)
}

/// Runs at most four times at once over all workers.
#[yadtq::task(max_running = 4)]
pub async fn few(ms: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    ms
}
