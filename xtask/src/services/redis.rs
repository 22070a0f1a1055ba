//! Starts the system's redis-server as a process of xtask.

use std::path::Path;
use std::process::{Child, Command};

use anyhow::Result;

use super::process;

pub(super) const PROGRAM: &str = "redis-server";

/// Starts Redis with the settings of docker-compose.yml.
pub(super) fn start(directory: &Path, port: u16) -> Result<Child> {
    let mut server = Command::new(PROGRAM);
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    server.args(["--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
    // By default Redis overwrites its command line, which `is_ours` needs to recognise it.
    server.args(["--set-proc-title", "no", "--dir"]).arg(directory);
    process::spawn(&mut server, directory)
}
