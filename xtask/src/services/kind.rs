//! The two kinds of servers, and what differs between them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::probe;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Kafka,
    Redis,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Kafka, Self::Redis];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Redis => "redis",
        }
    }

    /// The environment variable that names such a server.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "YADTQ_KAFKA",
            Self::Redis => "YADTQ_REDIS",
        }
    }

    /// The variable's value for a server on this machine. The address is a number,
    /// because `localhost` may mean `::1` first, where no server listens.
    pub(super) fn address(self, port: u16) -> String {
        match self {
            Self::Kafka => format!("127.0.0.1:{port}"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
        }
    }

    pub(super) fn well_known_port(self) -> u16 {
        match self {
            Self::Kafka => 9092,
            Self::Redis => 6379,
        }
    }

    /// Longest time that a start may take, on a slow and busy machine.
    pub(super) fn start_deadline(self) -> Duration {
        match self {
            Self::Kafka => Duration::from_secs(90),
            Self::Redis => Duration::from_secs(20),
        }
    }

    pub(super) fn directory(self, services: &Path) -> PathBuf {
        services.join(self.name())
    }

    pub(super) fn log(directory: &Path) -> PathBuf {
        directory.join("server.log")
    }

    /// Fails unless a server of this kind is ready for work at `address`.
    pub(super) fn probe(self, address: &str) -> Result<()> {
        match self {
            Self::Kafka => probe::kafka(address),
            Self::Redis => probe::redis(address),
        }
    }

    pub(super) fn probe_named(self, address: &str) -> Result<()> {
        let variable = self.variable();
        ensure!(address != "embedded", "{variable}=embedded names no server; unset it to have one started here");
        self.probe(address).with_context(|| {
            format!("{variable} names {address}, which doesn't answer; start it, or unset {variable} to have one started here")
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
