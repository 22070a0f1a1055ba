//! Finds the workspace and its build directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The checkout that xtask works on.
#[derive(Deserialize)]
pub(crate) struct Project {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// The build directory as Cargo reports it, with `CARGO_TARGET_DIR` and configuration.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
}

impl Project {
    pub(crate) fn find() -> Result<Self> {
        metadata(&["--no-deps"])
    }

    /// A command that runs in the workspace's root.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(&self.root);
        command
    }

    pub(crate) fn cargo(&self) -> Command {
        self.command(cargo())
    }
}

/// The part of `cargo metadata` that `T` describes.
pub(crate) fn metadata<T: for<'de> Deserialize<'de>>(arguments: &[&str]) -> Result<T> {
    let mut command = Command::new(cargo());
    command.args(["metadata", "--format-version=1"]).args(arguments);
    // `cargo run` sets this to the right checkout. The path known at compile time
    // may belong to another one, if checkouts share a build directory.
    if let Some(package) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(package);
    }
    let output = command.output().context("can't run cargo")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("can't read what `cargo metadata` printed")
}

/// The cargo that started xtask, so that a `+toolchain` stays in effect.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
