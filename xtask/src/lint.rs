//! `cargo xtask lint`: what a machine can say about the code without running it.

use anyhow::Result;

use crate::project::Project;
use crate::{command, dependencies};

pub(crate) fn run(project: &Project) -> Result<()> {
    command::run(project.cargo().args(["fmt", "--all", "--check"]))?;
    dependencies::check(project)?;
    // Advisories and sources as well, where the tool is at hand; what must hold
    // everywhere is checked above, so that the verdict doesn't depend on it.
    if command::find("cargo-deny").is_some() {
        command::run(project.cargo().args(["deny", "check"]))?;
    }
    // Not `--all-features`: `tls` builds OpenSSL, which needs more than a C compiler.
    command::run(project.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    command::run(project.cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
