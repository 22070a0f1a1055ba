//! `cargo xtask services status`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::directory;
use super::kind::Kind;
use super::state::{Runner, State};
use crate::project::Project;

#[derive(Serialize)]
struct Status {
    server: Kind,
    /// `ready`, `unreachable` (named by the environment, or started by `up`, but it
    /// does not answer) or `stopped`.
    state: &'static str,
    address: Option<String>,
    /// Who runs it: `environment`, `process`, `compose`.
    runner: Option<&'static str>,
    pid: Option<i32>,
    log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Prints the status. It takes no lock, so that it works while `up` runs.
pub(crate) fn print(project: &Project, json: bool) -> Result<ExitCode> {
    let services = directory(project);
    let state = State::read(&services)?;
    let all: Vec<_> = Kind::ALL.map(|kind| of(kind, &state, &services)).into();
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        all.iter().for_each(print_line);
    }
    let ready = all.iter().all(|status| status.state == "ready");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of(kind: Kind, state: &State, services: &std::path::Path) -> Status {
    let stopped =
        Status { server: kind, state: "stopped", address: None, runner: None, pid: None, log: None, problem: None };
    let named = state.named(kind);
    let known = if let Some(address) = named {
        Status { address: Some(address), runner: Some("environment"), ..stopped }
    } else if let Some(server) = state.server(kind) {
        let address = Some(server.address(kind));
        match server.runner {
            Runner::Nobody => return stopped,
            Runner::Compose => Status { address, runner: Some("compose"), ..stopped },
            Runner::Process { pid } => {
                let log = Some(Kind::log(&kind.directory(services)).display().to_string());
                Status { address, runner: Some("process"), pid: Some(pid), log, ..stopped }
            }
        }
    } else {
        return stopped;
    };
    let probed = known.address.as_deref().map_or(Ok(()), |address| kind.probe(address));
    let state = if probed.is_ok() { "ready" } else { "unreachable" };
    Status { state, problem: probed.err().map(|error| format!("{error:#}")), ..known }
}

fn print_line(status: &Status) {
    let mut line = format!("{:<6} {:<11}", status.server, status.state);
    let pid = status.pid.map(|pid| format!("pid {pid}"));
    for part in [&status.address, &status.runner.map(str::to_owned), &pid, &status.problem].into_iter().flatten() {
        line += "  ";
        line += part;
    }
    println!("{}", line.trim_end());
}
