//! The workers, and what happens to them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use yadtq_tests::{
    TEST_TIMEOUT,
    process::Env,
    soak::{Soak, What},
};

/// Number of workers that run at any time.
const WORKERS: usize = 3;
/// One in this many victims is stopped gracefully, the others are killed.
const GRACEFUL: u8 = 4;

/// The worker processes of a soak. Each logs into a file of its own.
pub(crate) struct Fleet {
    directory: PathBuf,
    env: Env,
    soak: Soak,
    workers: Vec<(u32, Child)>,
    /// Processes that were killed.
    pub killed: Vec<u32>,
    /// Processes that were asked to stop, and did.
    pub stopped: usize,
    /// Violations by workers.
    pub violations: Vec<String>,
}

impl Fleet {
    /// Starts the workers.
    pub(crate) fn start(directory: &Path, env: Env) -> Self {
        let soak = Soak::open(directory).expect("the journal can be opened");
        let (workers, killed, violations) = (Vec::new(), Vec::new(), Vec::new());
        let mut fleet = Self { directory: directory.to_owned(), env, soak, workers, killed, stopped: 0, violations };
        for _ in 0..WORKERS {
            fleet.start_one();
        }
        fleet
    }

    fn start_one(&mut self) {
        let file = || tempfile::Builder::new().prefix("worker-").suffix(".log").tempfile_in(&self.directory);
        let (log, _) = file().and_then(|file| Ok(file.keep()?)).expect("a log can be made");
        let errors = File::create(self.directory.join("stderr")).expect("a file can be made");
        let child = Command::new(env!("CARGO_BIN_EXE_test-worker"))
            .envs(self.env.iter())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .expect("a worker can be started");
        self.workers.push((child.id().expect("it has just started"), child));
    }

    /// Kills or stops one worker, and starts another.
    pub(crate) async fn strike(&mut self, rng: &mut fastrand::Rng) -> String {
        self.look();
        let (pid, mut victim) = self.workers.remove(rng.usize(..self.workers.len()));
        if rng.u8(..GRACEFUL) == 0 {
            self.start_one();
            self.stop(pid, victim).await;
            return format!("worker {pid} was asked to stop");
        }
        victim.kill().await.expect("it can be killed");
        self.soak.mark(What::Killed, pid).expect("the journal can be written");
        self.killed.push(pid);
        self.start_one();
        format!("worker {pid} was killed")
    }

    /// Checks that no worker has ended by itself.
    pub(crate) fn look(&mut self) {
        for at in (0..self.workers.len()).rev() {
            if let Some(status) = self.workers[at].1.try_wait().expect("it can be waited for") {
                let (pid, _) = self.workers.remove(at);
                self.violations.push(format!("worker {pid} ended by itself: {status}"));
                self.start_one();
            }
        }
    }

    /// Asks all workers to stop.
    pub(crate) async fn stop_all(&mut self) {
        self.look();
        for (pid, worker) in std::mem::take(&mut self.workers) {
            self.stop(pid, worker).await;
        }
    }

    async fn stop(&mut self, pid: u32, mut worker: Child) {
        let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(id, Signal::TERM).expect("it can be signalled");
        match timeout(TEST_TIMEOUT, worker.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => self.stopped += 1,
            Ok(status) => self.violations.push(format!("worker {pid} did not end well: {status:?}")),
            Err(_) => self.violations.push(format!("worker {pid} did not end within {TEST_TIMEOUT:?}")),
        }
    }
}

/// The times at which a worker is killed or stopped, from the start of the load.
pub(crate) fn strikes() -> impl Iterator<Item = Duration> {
    (0..).map(|n| Duration::from_secs(10 + 20 * n))
}
