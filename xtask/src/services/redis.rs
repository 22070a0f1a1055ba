//! The system's redis-server as a process of ours.

use std::path::Path;
use std::process::{Child, Command};

use anyhow::Result;

use super::process;

pub(super) const PROGRAM: &str = "redis-server";

/// Set as docker-compose.yml sets its Redis.
pub(super) fn start(directory: &Path, port: u16) -> Result<Child> {
    let mut server = Command::new(PROGRAM);
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    server.args(["--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
    // Redis overwrites its command line unless told not to, and we know it by that.
    server.args(["--set-proc-title", "no", "--dir"]).arg(directory);
    process::spawn(&mut server, directory)
}
