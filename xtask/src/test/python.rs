//! Prepares the virtual environment that the Python example runs in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::install::{self, Tool};
use crate::project::Project;

/// Returns the environment's interpreter, with the example's requirements
/// installed. `None` if there is no example: then its own test fails.
pub(super) fn prepare(project: &Project) -> Result<Option<PathBuf>> {
    let requirements = project.root.join("examples/python/requirements.txt");
    if !requirements.exists() {
        return Ok(None);
    }
    let wanted = fs::read(&requirements).with_context(|| format!("can't read {}", requirements.display()))?;
    let directory = project.target.join("python");
    let python = directory.join("bin/python");
    let marker = directory.join(".complete");
    // The environment refers to the system's interpreter, which may have been removed.
    let usable = || command::probe(Command::new(&python).arg("--version")).is_some();
    if fs::read(&marker).is_ok_and(|installed| installed == wanted) && usable() {
        return Ok(Some(python));
    }

    install::ensure(&[Tool::Python])?;
    command::run(project.command("python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
    let mut pip = project.command(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    command::run(pip.arg(&requirements))?;
    fs::write(&marker, wanted).with_context(|| format!("can't write {}", marker.display()))?;
    Ok(Some(python))
}
