//! A namespace of its own for every test, a worker in it, and a way to run the command there.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};
use yadtq::{Client, Context, Retry, RunningWorker, TaskId, Worker, WorkerBuilder};

/// Longest time for anything here. It is far more than necessary, so only something that hangs reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The servers that the tests use, and a namespace that no other test uses.
pub(crate) struct Place {
    pub(crate) kafka: String,
    pub(crate) redis: String,
    pub(crate) namespace: String,
}

/// How a run of the command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Place {
    pub(crate) fn new() -> Self {
        let id = TaskId::new().to_string();
        let namespace = format!("cli-{}", &id[id.len() - 12..]);
        Self { kafka: server("YADTQ_KAFKA"), redis: server("YADTQ_REDIS"), namespace }
    }

    /// Runs `yadtq`.
    pub(crate) async fn yadtq<const N: usize>(&self, args: [&str; N]) -> Ran {
        self.with_stdin(args, "").await
    }

    /// Runs `yadtq` with this text on stdin.
    pub(crate) async fn with_stdin<const N: usize>(&self, args: [&str; N], stdin: &str) -> Ran {
        run(self.command().args(args), stdin).await
    }

    /// `yadtq`, with the options for these servers and this namespace.
    pub(crate) fn command(&self) -> Command {
        let mut command = yadtq();
        command.args(["--kafka", &self.kafka, "--redis", &self.redis, "--namespace", &self.namespace]);
        command
    }

    pub(crate) async fn client(&self) -> Client {
        let client = Client::builder().kafka(&self.kafka).redis(&self.redis).namespace(&self.namespace).partitions(2);
        client.build().await.expect("settings that are right")
    }

    /// A worker that registers the tasks below.
    pub(crate) async fn worker(&self) -> RunningWorker {
        self.worker_with(|worker| worker).await
    }

    /// The same worker with more settings.
    pub(crate) async fn worker_with(&self, set: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> RunningWorker {
        let worker = Worker::builder().client(&self.client().await).register(add).register(greet).register(fail);
        // Tasks that run until they are asked to stop must not delay the tests.
        let worker = worker.register(hold).register(climb).drain_timeout(Duration::from_millis(100)).concurrency(7);
        let worker = worker.retry(Retry::new().max(3).base(Duration::from_secs(1)));
        set(worker.blocking_concurrency(1)).start().await.expect("settings that are right")
    }

    /// Waits until the task has this status.
    pub(crate) async fn until(&self, id: &str, status: &str) {
        let start = Instant::now();
        loop {
            let ran = self.yadtq(["status", id, "--json"]).await;
            if ran.code == 0 && ran.json()["status"] == status {
                return;
            }
            assert!(start.elapsed() < TEST_TIMEOUT, "{id} does not become {status}: {ran:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes a task's hash, as YADTQ would.
    pub(crate) async fn forge(&self, id: &str, fields: &[(&str, &str)]) {
        let client = redis::Client::open(&*self.redis).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let key = format!("{}:task:{{{id}}}", self.namespace);
        let () = redis::pipe()
            .hset_multiple(&key, fields)
            .ignore()
            .expire(&key, 600)
            .ignore()
            .query_async(&mut connection)
            .await
            .expect("a hash");
    }
}

impl Ran {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Checks that stderr has this line.
    #[track_caller]
    pub(crate) fn says(self, line: &str) -> Self {
        assert!(self.stderr.lines().any(|l| l == line), "no line `{line}`: {self:#?}");
        self
    }

    /// Checks that stderr has these words.
    #[track_caller]
    pub(crate) fn mentions(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "no `{words}`: {self:#?}");
        self
    }

    /// Checks all of stdout.
    #[track_caller]
    pub(crate) fn prints(self, stdout: &str) -> Self {
        assert_eq!(self.stdout, stdout, "{self:#?}");
        self
    }

    /// Checks that there is no note, warning or error.
    #[track_caller]
    pub(crate) fn quietly(self) -> Self {
        assert_eq!(self.stderr, "", "{self:#?}");
        self
    }

    /// Stdout, which is one line of JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// Stdout's only line.
    #[track_caller]
    pub(crate) fn line(&self) -> &str {
        assert_eq!(self.stdout.lines().count(), 1, "{self:#?}");
        self.stdout.trim_end()
    }
}

/// `yadtq`, without the variables of the environment.
pub(crate) fn yadtq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yadtq"));
    for name in ["YADTQ_KAFKA", "YADTQ_REDIS", "YADTQ_NAMESPACE", "YADTQ_KAFKA_CONF", "CLICOLOR_FORCE", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub(crate) async fn run(command: &mut Command, stdin: &str) -> Ran {
    let start = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the binary was built with the tests");
    let mut pipe = child.stdin.take().expect("it is piped");
    // This fails if the command has ended without reading.
    let _ = pipe.write_all(stdin.as_bytes()).await;
    drop(pipe);
    let output =
        tokio::time::timeout(TEST_TIMEOUT, child.wait_with_output()).await.expect("it ends").expect("it can end");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("no signal ended it");
    let ran = Ran { code, stdout: text(output.stdout), stderr: text(output.stderr), took: start.elapsed() };
    assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
    ran
}

fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `cargo xtask test`"))
}

#[yadtq::task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[yadtq::task(queue = "mail")]
async fn greet(name: String) -> String {
    format!("Hello, {name}")
}

#[yadtq::task(max_retries = 0)]
async fn fail(reason: String) -> Result<(), String> {
    Err(reason)
}

/// Runs until the worker stops.
#[yadtq::task]
async fn hold(ctx: Context) {
    ctx.cancelled().await;
}

/// Reports its progress.
#[yadtq::task]
async fn climb(ctx: Context) {
    for step in 1..=10 {
        ctx.progress(format!("step {step}"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
