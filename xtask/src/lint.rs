//! `cargo xtask lint`: checks the code without running it.

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
    command::run(project.cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
