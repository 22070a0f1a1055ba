//! `cargo xtask services`: real Kafka and Redis servers, by the means that the
//! machine has.
//!
//! For each server, the first rule that fits decides: a server that the environment
//! names is used, and never started or stopped; a server that `state.json` records
//! and that answers is reused; any other is started, by Docker Compose if an engine
//! answers, else as a process of xtask. `state.json` is written before `up` waits
//! for a server, so that `down` finds it however `up` ended.

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

/// One set of servers and its directory, which is locked as long as this value
/// lives.
pub(crate) struct Services<'a> {
    project: &'a Project,
    directory: PathBuf,
    /// Docker Compose's name for this set.
    compose: String,
    /// Whether servers in Docker have their default ports. Those of a developer do;
    /// those of a test run must not, since others may need these ports.
    well_known_ports: bool,
    state: State,
    _lock: File,
}

impl<'a> Services<'a> {
    /// The developer's servers. There is one set for each build directory.
    pub(crate) fn open(project: &'a Project) -> Result<Self> {
        Self::lock(project, directory(project), "yadtq".to_owned(), true)
    }

    /// A set for this process alone, separate from the developer's.
    pub(crate) fn for_test(&self) -> Result<Self> {
        self.test_set(&format!("{TEST_PREFIX}{}", std::process::id()))
    }

    /// Stops the servers of test runs that were killed, or that kept their servers.
    /// The lock on the developer's set prevents others from adding a set meanwhile.
    pub(crate) fn stop_abandoned(&self) -> Result<()> {
        let entries =
            fs::read_dir(&self.directory).with_context(|| format!("can't read {}", self.directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A run in progress holds its lock; the system releases that of a dead one.
            if !name.starts_with(TEST_PREFIX) || open_lock(&entry.path())?.try_lock().is_err() {
                continue;
            }
            eprintln!("stopping the servers that an earlier test run left in {}", entry.path().display());
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
            eprintln!("waiting for another xtask that uses {}", directory.display());
            lock.lock().context("can't lock the services' directory")?;
        }
        let state = State::read(&directory)?;
        Ok(Self { project, directory, compose, well_known_ports, state, _lock: lock })
    }

    /// Makes every server answer, and returns the variables that name them. It can
    /// be repeated: a server that already answers is not touched.
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

    /// Stops the servers that `up` started. Their data stays for the next `up`,
    /// unless `wipe`.
    pub(crate) fn down(&mut self, wipe: bool) -> Result<()> {
        // After an earlier `down` only the volumes are left, and the state has no record of them.
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

    /// Stops the servers, and deletes all files of this set.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.down(true)?;
        remove_directory(&self.directory)
    }

    fn record(&mut self, kind: Kind, port: u16, runner: Runner) -> Result<()> {
        self.state.set(kind, Server { port, runner });
        self.state.write(&self.directory)
    }
}

/// Makes sure that the tests have what they need besides running servers: Kafka's
/// jars, for its own tools, and a Redis binary, for servers that a test may kill.
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

/// Variables for the tools of the tests that are present. Servers in Docker run
/// without them.
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
