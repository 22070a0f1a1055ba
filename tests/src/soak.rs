//! The tasks of the mixed soak, and the journal in which their workers note every run.
//!
//! The journal is one file for all processes. A note is one write to its end, so the notes stand in the order in which
//! things happened, and a killed process leaves no half of one behind.

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

/// What a task returns that failed, and was replayed after its cure.
pub const CURED: &str = "cured";
/// The name of the periodic task.
pub const BEAT: &str = "beat";
/// Its interval in seconds.
pub const BEAT_SECONDS: u64 = 2;
/// The queue that is purged.
pub const PURGED: &str = "soak-purged";
/// How often a paced task starts: so many a second, and at once after a while without.
pub const PACE: (f64, f64) = (5.0, 3.0);
/// How many tasks of one key run at once.
pub const FEW: usize = 2;

/// The directory that the processes of a soak share: the journal, and the cures of tasks that fail.
#[derive(Debug)]
pub struct Soak {
    directory: PathBuf,
    journal: File,
}

/// What a note tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A run begins.
    Start,
    /// Its function is about to return.
    End,
    /// The process was killed: nothing of it follows.
    Killed,
    /// All queues that are in use are paused.
    Paused,
    /// They are about to go on.
    Resumed,
}

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    /// When, in ms since the Unix epoch.
    pub at: u64,
    /// What happened.
    pub what: What,
    /// In which process.
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

    /// Notes something that is no run.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn mark(&self, what: What, pid: u32) -> std::io::Result<()> {
        let (id, task) = (String::new(), String::new());
        self.write(&Note { at: now_ms(), what, pid, id, task, attempt: 0, token: 0 })
    }

    /// From now on, this task succeeds.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn cure(&self, id: &TaskId) -> std::io::Result<()> {
        File::create(self.directory.join(format!("cure-{id}"))).map(drop)
    }

    /// How long the journal is, in bytes.
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

/// The worker of a soak: all its tasks, and its periodic one.
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

/// Notes the run around its work.
async fn noted(ctx: &Context, work: impl Future<Output = Outcome>) -> Outcome {
    let soak = ctx.state::<Arc<Soak>>()?;
    soak.note(ctx, What::Start)?;
    let outcome = if soak.is_cured(ctx.id()) { Ok(CURED.into()) } else { work.await };
    soak.note(ctx, What::End)?;
    outcome
}

/// The same for plain functions.
fn noted_blocking(ctx: &Context, work: impl FnOnce() -> Outcome) -> Outcome {
    let soak = ctx.state::<Arc<Soak>>()?;
    soak.note(ctx, What::Start)?;
    let outcome = if soak.is_cured(ctx.id()) { Ok(CURED.into()) } else { work() };
    soak.note(ctx, What::End)?;
    outcome
}

/// Adds.
#[yadtq::task]
pub async fn soak_sum(ctx: Context, a: i64, b: i64) -> Outcome {
    noted(&ctx, async { Ok((a + b).into()) }).await
}

/// Fails at its first attempts, and then returns which one it was.
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

/// Snoozes until that time, and then returns its attempt.
#[yadtq::task(max_retries = 0)]
pub async fn soak_snooze(ctx: Context, until_ms: u64) -> Outcome {
    let attempt = ctx.attempt();
    let snooze = || TaskError::snooze(Duration::from_millis(300));
    noted(&ctx, async { if now_ms() < until_ms { Err(snooze()) } else { Ok(attempt.into()) } }).await
}

/// Goes on until it is told to end: for good, or because its worker stops; then another one has it.
#[yadtq::task(max_retries = 0)]
pub async fn soak_obey(ctx: Context) -> Outcome {
    let end = async {
        ctx.cancelled().await;
        Err(TaskError::snooze(Duration::from_millis(100)))
    };
    noted(&ctx, end).await
}

/// Counts, and tells how far it is.
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

/// Takes too long, twice.
#[yadtq::task(timeout = "200ms", max_retries = 1, retry_base = "50ms")]
pub async fn soak_dawdle(ctx: Context) -> Outcome {
    noted(&ctx, std::future::pending()).await
}

/// Takes a while on the blocking pool.
#[yadtq::task]
pub fn soak_doze(ctx: Context, ms: u64) -> Outcome {
    noted_blocking(&ctx, || {
        std::thread::sleep(Duration::from_millis(ms));
        Ok(ms.into())
    })
}

/// Takes too long on the blocking pool.
#[yadtq::task(timeout = "300ms", max_retries = 0)]
pub fn soak_overrun(ctx: Context) -> Outcome {
    noted_blocking(&ctx, || {
        std::thread::sleep(Duration::from_millis(600));
        Ok(Value::Null)
    })
}

/// Fails at its first attempts, in the order of its key.
#[yadtq::task(max_retries = 2, retry_base = "50ms")]
pub async fn soak_ordered(ctx: Context, failures: u32) -> Outcome {
    let attempt = ctx.attempt();
    let work = async { if attempt <= failures { Err(TaskError::retry("not yet")) } else { Ok(attempt.into()) } };
    noted(&ctx, work).await
}

/// Starts now and then, see [`PACE`].
#[yadtq::task(rate_limit = "5/s", rate_burst = 3)]
pub async fn soak_paced(ctx: Context) -> Outcome {
    noted(&ctx, async { Ok(Value::Null) }).await
}

/// Takes a while, and few of one key do at once, see [`FEW`].
#[yadtq::task(max_running = 2, limit_key = "key")]
pub async fn soak_few(ctx: Context, key: u64) -> Outcome {
    let work = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(key.into())
    };
    noted(&ctx, work).await
}

/// Is in a queue that is purged.
#[yadtq::task(queue = "soak-purged")]
pub async fn soak_purged(ctx: Context) -> Outcome {
    noted(&ctx, async { Ok(Value::Null) }).await
}

/// Is disabled at times.
#[yadtq::task]
pub async fn soak_switched(ctx: Context) -> Outcome {
    noted(&ctx, async { Ok(Value::Null) }).await
}
