//! Processes whose log lines a test can wait for.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use crate::TEST_TIMEOUT;

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

/// What the processes of one test have in common.
#[derive(Clone, Debug)]
pub struct Env(Vec<(String, String)>);

impl Env {
    /// An environment with these servers and this namespace.
    #[must_use]
    pub fn new(kafka: &str, redis: &str, namespace: &str) -> Self {
        Self(vec![]).with("YADTQ_KAFKA", kafka).with("YADTQ_REDIS", redis).with("YADTQ_NAMESPACE", namespace)
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Process {
    /// Starts a program, and reads its stdout.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(program: &Path, args: &[&str], env: &Env) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .envs(env.0.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()));
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (new_count, count) = watch::channel(0);
        let written = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let mut lines = written.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line);
                new_count.send_replace(lines.len());
            }
        });
        Self { child, lines, count }
    }

    /// The process id.
    ///
    /// # Panics
    /// The process has ended and was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process lives")
    }

    /// All lines that it has printed.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events with this name that it has logged.
    #[must_use]
    pub fn events(&self, name: &str) -> Vec<Value> {
        let mark = format!("\"event\":\"{name}\"");
        let lines = self.output();
        lines.iter().filter(|line| line.contains(&mark)).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the first event with this name for which `fits` is true.
    ///
    /// # Panics
    /// The event does not come within [`TEST_TIMEOUT`].
    pub async fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut count = self.count.clone();
        let wait = async {
            loop {
                count.borrow_and_update();
                if let Some(event) = self.events(name).into_iter().find(&fits) {
                    return event;
                }
                if count.changed().await.is_err() {
                    panic!("the process ended without event {name}; its output:\n{}", self.output().join("\n"));
                }
            }
        };
        match timeout(TEST_TIMEOUT, wait).await {
            Ok(event) => event,
            Err(_) => panic!(
                "no event {name} within {TEST_TIMEOUT:?}; the output of the process:\n{}",
                self.output().join("\n")
            ),
        }
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// It cannot be killed.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// It cannot be sent.
    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it can be signalled");
    }

    /// Waits for its end, and returns whether it succeeded.
    ///
    /// # Panics
    /// It does not end.
    pub async fn end(&mut self) -> bool {
        let status = timeout(TEST_TIMEOUT * 3, self.child.wait()).await.expect("the process ends in time");
        status.expect("it can be waited for").success()
    }
}
