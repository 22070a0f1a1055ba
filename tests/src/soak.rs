//! The tasks of the mixed soak, and the journal into which their workers write every run.
//!
//! The journal is one file for all processes. Each note is appended with one write, so the notes are in the order in
//! which things happened, and a killed process never leaves half a note.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use yadtq::{Context, Missed, Periodic, TaskError, TaskId, WorkerBuilder};

use crate::now_ms;

/// The result of a task that failed, and was cured and replayed.
pub const CURED: &str = "cured";
/// The name of the periodic task.
pub const BEAT: &str = "beat";
/// Its interval in seconds.
pub const BEAT_SECONDS: u64 = 2;
/// The queue that is purged.
pub const PURGED: &str = "soak-purged";
/// The rate limit of the task `soak_paced`: starts per second, and the burst.
pub const START_RATE: (f64, f64) = (5.0, 3.0);
/// Largest number of tasks of one key that run at once.
pub const FEW: usize = 2;

/// The directory that the processes of a soak share. It has the journal, and the cures of tasks that fail.
#[derive(Debug)]
pub struct Soak {
    directory: PathBuf,
    journal: File,
}

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A run begins.
    Start,
    /// Its function is about to return.
    End,
    /// The process was killed: no note of it follows.
    Killed,
    /// All queues that are in use are paused.
    Paused,
    /// The queues are about to be resumed.
    Resumed,
}

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    /// When, in ms since the Unix epoch.
    pub at: u64,
    /// What happened.
    pub what: What,
    /// The process id.
    pub pid: u32,
    /// The task's id.
    #[serde(default)]
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub task: String,
    /// The attempt.
    #[serde(default)]
    pub attempt: u32,
    /// The run's fence token.
    #[serde(default)]
    pub token: u64,
}

impl Soak {
    /// Opens the shared directory.
    ///
    /// # Errors
    /// The journal cannot be opened.
    pub fn open(directory: &Path) -> std::io::Result<Self> {
        let journal = OpenOptions::new().create(true).append(true).open(directory.join("journal"))?;
        Ok(Self { directory: directory.to_owned(), journal })
    }

    /// Writes a note about something other than a run.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn mark(&self, what: What, pid: u32) -> std::io::Result<()> {
        let (id, task) = (String::new(), String::new());
        self.write(&Note { at: now_ms(), what, pid, id, task, attempt: 0, token: 0 })
    }

    /// Makes this task succeed from now on.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn cure(&self, id: &TaskId) -> std::io::Result<()> {
        File::create(self.directory.join(format!("cure-{id}"))).map(drop)
    }

    /// The length of the journal, in bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn length(&self) -> std::io::Result<u64> {
        Ok(self.journal.metadata()?.len())
    }

    /// All notes so far.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn notes(&self) -> std::io::Result<Vec<Note>> {
        let lines = BufReader::new(File::open(self.directory.join("journal"))?).lines();
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }

    fn note(&self, ctx: &Context, what: What) -> std::io::Result<()> {
        let (id, task) = (ctx.id().to_string(), ctx.task().to_owned());
        let (attempt, token) = (ctx.attempt(), ctx.token());
        self.write(&Note { at: now_ms(), what, pid: std::process::id(), id, task, attempt, token })
    }

    fn write(&self, note: &Note) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        (&self.journal).write_all(&line)
    }

    fn is_cured(&self, id: &TaskId) -> bool {
        self.directory.join(format!("cure-{id}")).exists()
    }
}

/// Registers all tasks of the soak and its periodic task.
pub fn register(worker: WorkerBuilder, soak: Soak) -> WorkerBuilder {
    worker
        .register(soak_sum)
        .register(soak_flaky)
        .register(soak_fatal)
        .register(soak_snooze)
        .register(soak_obey)
        .register(soak_count)
        .register(soak_dawdle)
        .register(soak_doze)
        .register(soak_overrun)
        .register(soak_ordered)
        .register(soak_paced)
        .register(soak_few)
        .register(soak_purged)
        .register(soak_switched)
        .state(Arc::new(soak))
        .periodic(Periodic::every(BEAT, Duration::from_secs(BEAT_SECONDS), soak_sum.call(1, 1)).missed(Missed::RunOnce))
}

type Outcome = Result<Value, TaskError>;

/// Writes notes before and after the work of a run.
async fn noted(ctx: &Context, work: impl Future<Output = Outcome>) -> Outcome {
    let soak = ctx.state::<Arc<Soak>>()?;
    soak.note(ctx, What::Start)?;
    let outcome = if soak.is_cured(ctx.id()) { Ok(CURED.into()) } else { work.await };
    soak.note(ctx, What::End)?;
    outcome
}

/// Like [`noted`], for plain functions.
fn noted_blocking(ctx: &Context, work: impl FnOnce() -> Outcome) -> Outcome {
    let soak = ctx.state::<Arc<Soak>>()?;
    soak.note(ctx, What::Start)?;
    let outcome = if soak.is_cured(ctx.id()) { Ok(CURED.into()) } else { work() };
    soak.note(ctx, What::End)?;
    outcome
}

/// Adds two numbers.
#[yadtq::task]
pub async fn soak_sum(ctx: Context, a: i64, b: i64) -> Outcome {
    noted(&ctx, async { Ok((a + b).into()) }).await
}

/// Fails at its first attempts, and then returns the number of the attempt.
#[yadtq::task(max_retries = 2, retry_base = "50ms")]
pub async fn soak_flaky(ctx: Context, failures: u32) -> Outcome {
    let attempt = ctx.attempt();
    let work = async { if attempt <= failures { Err(TaskError::retry("not yet")) } else { Ok(attempt.into()) } };
    noted(&ctx, work).await
}

/// Fails for good.
#[yadtq::task]
pub async fn soak_fatal(ctx: Context) -> Outcome {
    noted(&ctx, async { Err(TaskError::fatal("no use")) }).await
}

/// Snoozes until that time, and then returns the number of its attempt.
#[yadtq::task(max_retries = 0)]
pub async fn soak_snooze(ctx: Context, until_ms: u64) -> Outcome {
    let attempt = ctx.attempt();
    let snooze = || TaskError::snooze(Duration::from_millis(300));
    noted(&ctx, async { if now_ms() < until_ms { Err(snooze()) } else { Ok(attempt.into()) } }).await
}

/// Runs until it is asked to stop: because it is revoked, or because its worker stops and another worker runs it.
#[yadtq::task(max_retries = 0)]
pub async fn soak_obey(ctx: Context) -> Outcome {
    let end = async {
        ctx.cancelled().await;
        Err(TaskError::snooze(Duration::from_millis(100)))
    };
    noted(&ctx, end).await
}

/// Counts, and reports its progress.
#[yadtq::task]
pub async fn soak_count(ctx: Context, to: u64, ms: u64) -> Outcome {
    let count = async {
        for step in 1..=to {
            ctx.progress(step);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        Ok(to.into())
    };
    noted(&ctx, count).await
}

/// Runs into its timeout, twice.
#[yadtq::task(timeout = "200ms", max_retries = 1, retry_base = "50ms")]
pub async fn soak_dawdle(ctx: Context) -> Outcome {
    noted(&ctx, std::future::pending()).await
}

/// Sleeps on the blocking pool.
#[yadtq::task]
pub fn soak_doze(ctx: Context, ms: u64) -> Outcome {
    noted_blocking(&ctx, || {
        std::thread::sleep(Duration::from_millis(ms));
        Ok(ms.into())
    })
}

/// Runs into its timeout on the blocking pool.
#[yadtq::task(timeout = "300ms", max_retries = 0)]
pub fn soak_overrun(ctx: Context) -> Outcome {
    noted_blocking(&ctx, || {
        std::thread::sleep(Duration::from_millis(600));
        Ok(Value::Null)
    })
}

/// Fails at its first attempts, and keeps the order of its key.
#[yadtq::task(max_retries = 2, retry_base = "50ms")]
pub async fn soak_ordered(ctx: Context, failures: u32) -> Outcome {
    let attempt = ctx.attempt();
    let work = async { if attempt <= failures { Err(TaskError::retry("not yet")) } else { Ok(attempt.into()) } };
    noted(&ctx, work).await
}

/// Starts at a limited rate, see [`START_RATE`].
#[yadtq::task(rate_limit = "5/s", rate_burst = 3)]
pub async fn soak_paced(ctx: Context) -> Outcome {
    noted(&ctx, async { Ok(Value::Null) }).await
}

/// Sleeps; few of one key run at once, see [`FEW`].
#[yadtq::task(max_running = 2, limit_key = "key")]
pub async fn soak_few(ctx: Context, key: u64) -> Outcome {
    let work = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(key.into())
    };
    noted(&ctx, work).await
}

/// Runs in a queue that is purged.
#[yadtq::task(queue = "soak-purged")]
pub async fn soak_purged(ctx: Context) -> Outcome {
    noted(&ctx, async { Ok(Value::Null) }).await
}

/// Is disabled from time to time.
#[yadtq::task]
pub async fn soak_switched(ctx: Context) -> Outcome {
    noted(&ctx, async { Ok(Value::Null) }).await
}
