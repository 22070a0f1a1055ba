//! The tasks of the test worker.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use yadtq::{Context, MissingState, TaskError};

/// Notes every execution in a file, one task id a line.
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

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&self) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Adds, and notes that it ran.
#[yadtq::task]
pub async fn add(ctx: Context, a: i64, b: i64) -> Result<i64, TaskError> {
    ctx.state::<std::sync::Arc<Record>>()?.note(&ctx)?;
    Ok(a + b)
}

/// Takes a while.
#[yadtq::task]
pub async fn nap(ms: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    ms
}

/// Takes a while on the blocking pool.
#[yadtq::task]
pub fn doze(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// Blocks its thread of the runtime, as no task should.
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
#[yadtq::task]
pub async fn fail(message: String) -> Result<(), String> {
    Err(message)
}

/// Panics.
#[yadtq::task]
pub async fn panic(message: String) {
    panic!("{message}");
}

/// Gives up after 200 ms.
#[yadtq::task(timeout = "200ms")]
pub async fn dawdle() {
    std::future::pending::<()>().await;
}

/// Returns what it is given, whatever it is.
#[yadtq::task]
pub async fn echo(value: serde_json::Value) -> serde_json::Value {
    value
}

/// Uses the worker's client.
#[yadtq::task]
pub async fn nested(ms: u64) -> Result<u64, yadtq::Error> {
    nap.delay(ms).await?.await
}

/// Asks for a state that the worker does not have.
#[yadtq::task]
pub async fn stateless(ctx: Context) -> Result<u8, MissingState> {
    ctx.state::<u8>().copied()
}

/// Its results are kept for two hours.
#[yadtq::task(result_ttl = "2h")]
pub async fn brief(value: u8) -> u8 {
    value
}

/// Goes on until it is told to end, and then says so.
#[yadtq::task]
pub async fn obey(ctx: Context) -> Result<(), String> {
    ctx.cancelled().await;
    Err("told to end".to_owned())
}

/// Counts, a step every `ms`, and tells how far it is.
#[yadtq::task]
pub async fn count(ctx: Context, to: u64, ms: u64) -> u64 {
    for step in 1..=to {
        ctx.progress(step);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    to
}

/// Tells more than anybody can hear, then waits until it is told to end.
#[yadtq::task]
pub fn flood(ctx: Context, reports: u64) -> Result<(), String> {
    (1..=reports).for_each(|report| ctx.progress(report));
    while !ctx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Err("told to end".to_owned())
}

/// Tells more at once than is taken.
#[yadtq::task]
pub async fn overdo(ctx: Context) -> u8 {
    for _ in 0..100 {
        ctx.progress("x".repeat(Context::MAX_PROGRESS_BYTES));
    }
    1
}

/// Once an hour for the same argument.
#[yadtq::task(unique = "1h")]
pub async fn once(fields: std::collections::BTreeMap<String, u8>) -> i64 {
    fields.values().copied().map(i64::from).sum()
}

/// Notes that it ran, at once: its worker may be killed.
#[yadtq::task]
pub async fn tick(ctx: Context) -> Result<(), TaskError> {
    let record = ctx.state::<std::sync::Arc<Record>>()?;
    record.note(&ctx)?;
    Ok(record.flush()?)
}
