//! The servers of docker-compose.yml.

use std::process::Command;

use anyhow::Result;

use super::kind::Kind;
use super::state::State;
use crate::command;
use crate::project::Project;

/// Whether an engine answers and Compose is installed. The `docker` command
/// alone is not enough: some machines have it without an engine.
pub(super) fn answers() -> bool {
    let engine = command::probe(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]));
    engine.is_some() && command::probe(Command::new("docker").args(["compose", "version"])).is_some()
}

/// Starts containers for `kinds`, and returns when their health checks pass.
pub(super) fn up(project: &Project, name: &str, state: &State, kinds: &[Kind]) -> Result<()> {
    let mut compose = compose(project, name);
    for &kind in kinds {
        if let Some(server) = state.server(kind) {
            compose.env(format!("{}_PORT", kind.variable()), server.port.to_string());
        }
    }
    command::run(compose.args(["up", "--detach", "--wait"]).args(kinds.iter().map(|kind| kind.name())))
}

/// Removes the containers; with `wipe`, their volumes too.
pub(super) fn down(project: &Project, name: &str, wipe: bool) -> Result<()> {
    command::run(compose(project, name).arg("down").args(wipe.then_some("--volumes")))
}

fn compose(project: &Project, name: &str) -> Command {
    let mut command = project.command("docker");
    command.args(["compose", "--file", "docker-compose.yml", "--project-name", name]);
    command
}
