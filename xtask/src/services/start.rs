//! Starts the servers that don't answer yet.

use std::fs;
use std::path::Path;
use std::process::Child;

use anyhow::{Context, Result};

use super::kind::Kind;
use super::state::Runner;
use super::{Services, docker, kafka, ports, process, redis};
use crate::install::{self, Tool};

impl Services<'_> {
    /// Makes all of `kinds` answer: with Docker Compose if an engine answers, else as
    /// processes of xtask.
    pub(super) fn start(&mut self, kinds: &[Kind]) -> Result<()> {
        let answers = |kind| self.state.server(kind).is_some_and(|server| server.answers(kind, &self.directory));
        let missing: Vec<_> = kinds.iter().copied().filter(|&kind| !answers(kind)).collect();
        if missing.is_empty() {
            Ok(())
        } else if docker::answers() {
            self.start_in_docker(&missing)
        } else {
            self.start_processes(&missing)
        }
    }

    fn start_in_docker(&mut self, kinds: &[Kind]) -> Result<()> {
        for &kind in kinds {
            let port = if self.well_known_ports { kind.well_known_port() } else { ports::free(None)? };
            self.record(kind, port, Runner::Compose)?;
        }
        docker::up(self.project, &self.compose, &self.state, kinds)?;
        for &kind in kinds {
            if let Some(server) = self.state.server(kind) {
                process::wait_until_ready(kind, &server.address(kind), None)?;
            }
        }
        Ok(())
    }

    fn start_processes(&mut self, kinds: &[Kind]) -> Result<()> {
        install::ensure(&tools(kinds))?;
        for &kind in kinds {
            let directory = kind.directory(&self.directory);
            let before = self.state.server(kind);
            // It may hang, or be half started by an `up` that was interrupted.
            if let Some(Runner::Process { pid }) = before.map(|server| &server.runner) {
                process::stop(*pid, &directory, kind.name())?;
            }
            // The port stays the same, so that variables exported earlier stay valid.
            let port = ports::free(before.map(|server| server.port))?;
            eprintln!("{kind}: starting on port {port}");
            let mut child = self.spawn(kind, &directory, port)?;
            self.record(kind, port, Runner::Process { pid: process::pid(&child) })?;
            process::wait_until_ready(kind, &kind.address(port), Some((&mut child, &directory)))?;
        }
        Ok(())
    }

    fn spawn(&self, kind: Kind, directory: &Path, port: u16) -> Result<Child> {
        fs::create_dir_all(directory).with_context(|| format!("can't create {}", directory.display()))?;
        match kind {
            Kind::Kafka => kafka::start(self.project, directory, port),
            Kind::Redis => redis::start(directory, port),
        }
    }
}

/// The tools that servers of these kinds need as processes of xtask.
pub(super) fn tools(kinds: &[Kind]) -> Vec<Tool> {
    let tools_of = |kind: &Kind| match kind {
        Kind::Kafka => vec![Tool::Java, Tool::Maven],
        Kind::Redis => vec![Tool::RedisServer],
    };
    kinds.iter().flat_map(tools_of).collect()
}
