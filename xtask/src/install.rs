//! The few programs that Cargo can't bring. They are installed on Debian as root;
//! elsewhere the error names the one command that would install them.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

#[derive(Clone, Copy)]
pub(crate) enum Tool {
    Java,
    Maven,
    RedisServer,
    /// A `python3` that can make virtual environments.
    Python,
}

impl Tool {
    fn present(self) -> bool {
        match self {
            Self::Java => command::probe(Command::new("java").arg("-version"))
                .and_then(|text| java_major(&text))
                .is_some_and(|major| major >= 17),
            Self::Maven => command::find("mvn").is_some(),
            Self::RedisServer => command::find("redis-server").is_some(),
            // Debian ships `venv` without the part that puts pip into it.
            Self::Python => command::probe(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_some(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Java => "Java 17 or newer",
            Self::Maven => "Maven",
            Self::RedisServer => "redis-server",
            Self::Python => "Python 3 with venv",
        }
    }

    fn debian_package(self) -> &'static str {
        match self {
            Self::Java => "default-jre-headless",
            Self::Maven => "maven",
            Self::RedisServer => "redis-server",
            Self::Python => "python3-venv",
        }
    }

    fn brew_package(self) -> &'static str {
        match self {
            Self::Java => "openjdk",
            Self::Maven => "maven",
            Self::RedisServer => "redis",
            Self::Python => "python3",
        }
    }
}

/// Makes sure that all `tools` are present. On Debian, as root, it installs missing
/// ones and says so; elsewhere it fails with the command to type.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let names = list(&missing, Tool::name, ", ");
    let debian = Path::new("/etc/debian_version").exists() && command::find("apt-get").is_some();
    if debian && rustix::process::geteuid().is_root() {
        eprintln!("missing: {names}. Installing with apt-get");
        apt_install(&missing)?;
    } else if debian {
        let packages = list(&missing, Tool::debian_package, " ");
        bail!("missing: {names}. Install with\n  sudo apt-get update && sudo apt-get install -y {packages}");
    } else if cfg!(target_os = "macos") {
        bail!("missing: {names}. Install with\n  brew install {}", list(&missing, Tool::brew_package, " "));
    } else {
        bail!("missing: {names}. Install with the system's package manager");
    }

    let still = self::missing(tools);
    if !still.is_empty() {
        bail!("apt-get succeeded, but these are still missing: {}", list(&still, Tool::name, ", "));
    }
    Ok(())
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|tool| !tool.present()).collect()
}

fn list(tools: &[Tool], name: fn(Tool) -> &'static str, separator: &str) -> String {
    tools.iter().map(|&tool| name(tool)).collect::<Vec<_>>().join(separator)
}

fn apt_install(tools: &[Tool]) -> Result<()> {
    let _policy = NoServiceStarts::declare()?;
    // Another apt, such as unattended upgrades at boot, may hold the lock for a while.
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-o", "DPkg::Lock::Timeout=120"]).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    command::run(apt().arg("update"))?;
    let packages = tools.iter().map(|tool| tool.debian_package());
    command::run(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// Keeps Debian from starting a service when it installs it: a Redis that nobody
/// asked for would take port 6379. A `policy-rc.d` that exits with 101 is the
/// documented way. It is removed on drop; one that existed before stays.
struct NoServiceStarts {
    ours: bool,
}

impl NoServiceStarts {
    const PATH: &str = "/usr/sbin/policy-rc.d";

    fn declare() -> Result<Self> {
        let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(Self::PATH);
        match created {
            Ok(mut file) => {
                file.write_all(b"#!/bin/sh\nexit 101\n")?;
                Ok(Self { ours: true })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).with_context(|| format!("can't write {}", Self::PATH)),
        }
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(Self::PATH);
        }
    }
}

/// The 17 of `openjdk version "17.0.15" 2025-04-15`.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_prints_its_major_version() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16\n"), Some(25));
        assert_eq!(java_major("openjdk version \"27-ea\" 2026-09-15\n"), Some(27));
        assert_eq!(java_major("java version \"1.8.0_401\"\n"), Some(1));
        assert_eq!(java_major("no such thing"), None);
    }
}
