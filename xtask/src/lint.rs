//! `cargo xtask lint`: checks the code without running it.
//!
//! For other systems it is compiled as far as that needs no C compiler of theirs, if `rustup` has their standard libraries:
//! `rustup target add x86_64-pc-windows-gnu aarch64-apple-darwin`.

use std::process::Command;

use anyhow::Result;

use crate::project::Project;
use crate::{command, dependencies, words};

pub(crate) fn run(project: &Project) -> Result<()> {
    command::run(project.cargo().args(["fmt", "--all", "--check"]))?;
    words::check(project)?;
    dependencies::check(project)?;
    // Checks advisories and sources too, if it is installed. Rules that must hold on
    // every machine are checked above.
    if command::find("cargo-deny").is_some() {
        command::run(project.cargo().args(["deny", "check"]))?;
    }
    // Not `--all-features`: `tls` builds OpenSSL, which needs more than a C compiler.
    command::run(project.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // The embedded backend alone, which trybuild and the quickstart build.
    let embedded = ["clippy", "--package", "yadtq", "--no-default-features", "--", "-D", "warnings"];
    command::run(project.cargo().args(embedded))?;
    check_targets(project)?;
    command::run(project.cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// All that is written in Rust, for the systems whose targets are installed.
fn check_targets(project: &Project) -> Result<()> {
    let Some(rustup) = command::find("rustup") else { return Ok(()) };
    let installed = Command::new(rustup).args(["target", "list", "--installed"]).output()?.stdout;
    let installed = String::from_utf8_lossy(&installed).into_owned();
    for target in installed.lines().filter(|target| target.contains("windows") || target.contains("apple")) {
        let portable =
            ["check", "--package", "yadtq", "--no-default-features", "--features", "redis", "--target", target];
        command::run(project.cargo().args(portable))?;
    }
    Ok(())
}
