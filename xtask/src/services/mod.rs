//! `cargo xtask services`: real Kafka and Redis servers, from whatever the
//! machine offers.
//!
//! Authority, in this order: a server that the environment names is used and
//! never touched; one that `state.json` records and that answers is reused;
//! what is left is started, by Docker Compose where an engine answers, else as
//! processes of our own. `state.json` is written before a server is waited for,
//! so that `down` finds it however `up` ended.

mod docker;
mod kafka;
mod kind;
mod ports;
mod probe;
mod process;
mod redis;
mod start;
mod state;
pub(crate) mod status;
mod variables;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::install;
use crate::project::Project;
use kind::Kind;
use state::{Runner, Server, State};
pub(crate) use variables::Variables;

/// One set of servers and the directory they live in, locked for as long as
/// this value lives.
pub(crate) struct Services<'a> {
    project: &'a Project,
    directory: PathBuf,
    /// Docker Compose's name for this set.
    compose: String,
    /// In Docker, a developer's servers have the ports that everybody expects;
    /// those of a test run must not be in anyone's way.
    well_known_ports: bool,
    state: State,
    _lock: File,
}

impl<'a> Services<'a> {
    /// The developer's servers: one set for a build directory.
    pub(crate) fn open(project: &'a Project) -> Result<Self> {
        Self::lock(project, directory(project), "yadtq".to_owned(), true)
    }

    /// A set for this process alone, beside the developer's.
    pub(crate) fn for_test(&self) -> Result<Self> {
        self.test_set(&format!("{TEST_PREFIX}{}", std::process::id()))
    }

    /// Stops the servers of test runs that were killed, or that kept theirs.
    /// The lock on the developer's set keeps others from adding one meanwhile.
    pub(crate) fn stop_abandoned(&self) -> Result<()> {
        let entries =
            fs::read_dir(&self.directory).with_context(|| format!("can't read {}", self.directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A run in progress holds its lock; the system releases a dead one's.
            if !name.starts_with(TEST_PREFIX) || open_lock(&entry.path())?.try_lock().is_err() {
                continue;
            }
            eprintln!("stopping what an earlier test run left in {}", entry.path().display());
            self.test_set(&name)?.remove()?;
        }
        Ok(())
    }

    fn test_set(&self, name: &str) -> Result<Self> {
        Self::lock(self.project, self.directory.join(name), format!("yadtq-{name}"), false)
    }

    fn lock(project: &'a Project, directory: PathBuf, compose: String, well_known_ports: bool) -> Result<Self> {
        let lock = open_lock(&directory)?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            eprintln!("waiting for another xtask that works in {}", directory.display());
            lock.lock().context("can't lock the services' directory")?;
        }
        let state = State::read(&directory)?;
        Ok(Self { project, directory, compose, well_known_ports, state, _lock: lock })
    }

    /// Makes every server answer, and tells how to reach them. Repeatable: what
    /// answers already is left alone.
    pub(crate) fn up(&mut self) -> Result<Variables> {
        let mut variables = Variables::default();
        let mut own = Vec::new();
        for kind in Kind::ALL {
            let Some(address) = self.state.named(kind) else {
                own.push(kind);
                continue;
            };
            kind.probe_named(&address)?;
            eprintln!("{kind}: {address}, from the environment");
            variables.set(kind.variable(), address);
        }
        self.start(&own)?;
        for kind in own {
            if let Some(server) = self.state.server(kind) {
                eprintln!("{kind}: {}, {}", server.address(kind), server.runner);
                variables.set(kind.variable(), server.address(kind));
            }
        }
        variables.extend(test_tools(self.project));
        Ok(variables)
    }

    /// Stops what `up` started. Data is kept for the next `up`, unless `wipe`.
    pub(crate) fn down(&mut self, wipe: bool) -> Result<()> {
        // After an earlier `down` only the volumes are left, and not recorded.
        if self.state.in_docker() || (wipe && docker::answers()) {
            docker::down(self.project, &self.compose, wipe)?;
        }
        for kind in Kind::ALL {
            let Some(&Server { port, ref runner }) = self.state.server(kind) else {
                continue;
            };
            if let Runner::Process { pid } = *runner {
                process::stop(pid, &kind.directory(&self.directory), kind.name())?;
            }
            eprintln!("{kind}: stopped");
            self.record(kind, port, Runner::Nobody)?;
        }
        if wipe {
            for kind in Kind::ALL {
                remove_directory(&kind.directory(&self.directory))?;
            }
        }
        Ok(())
    }

    /// Stops the servers, and leaves nothing of this set behind.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.down(true)?;
        remove_directory(&self.directory)
    }

    fn record(&mut self, kind: Kind, port: u16, runner: Runner) -> Result<()> {
        self.state.set(kind, Server { port, runner });
        self.state.write(&self.directory)
    }
}

/// Makes sure of what the tests need beside running servers: Kafka's jars, for
/// its own tools, and a Redis binary, for servers that a test may kill.
pub(crate) fn ensure_test_tools(project: &Project) -> Result<()> {
    install::ensure(&start::tools(&Kind::ALL))?;
    kafka::fetch_libraries(project).map(drop)
}

const TEST_PREFIX: &str = "test-";

fn directory(project: &Project) -> PathBuf {
    project.target.join("services")
}

fn open_lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).with_context(|| format!("can't create {}", directory.display()))?;
    let path = directory.join("lock");
    File::create(&path).with_context(|| format!("can't open {}", path.display()))
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't delete {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Named where they are at hand: servers in Docker don't need them.
fn test_tools(project: &Project) -> Variables {
    let mut variables = Variables::default();
    if let Some(libraries) = kafka::libraries(project) {
        variables.set("YADTQ_TEST_KAFKA_LIBS", libraries.display().to_string());
    }
    if let Some(server) = crate::command::find(redis::PROGRAM) {
        variables.set("YADTQ_TEST_REDIS_SERVER", server.display().to_string());
    }
    variables
}
