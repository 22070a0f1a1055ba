//! `state.json` records which servers `up` has started, for the next `up`, `down`
//! and `status`.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fmt, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::process;

#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct State {
    servers: BTreeMap<Kind, Server>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) runner: Runner,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Runner {
    Process {
        pid: i32,
    },
    Compose,
    /// Nobody, since `down`. The port stays recorded, so that variables exported
    /// before are valid again after the next `up`.
    Nobody,
}

impl State {
    /// Reads the state. It is empty if no server was started yet.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        };
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; stop the servers by hand, and delete it", path.display()))
    }

    /// Writes all of the state or none: a half-written file would lose a running
    /// server.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let draft = directory.join(format!("{FILE}.new"));
        fs::write(&draft, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("can't write {}", path.display()))
    }

    pub(super) fn server(&self, kind: Kind) -> Option<&Server> {
        self.servers.get(&kind)
    }

    pub(super) fn set(&mut self, kind: Kind, server: Server) {
        self.servers.insert(kind, server);
    }

    pub(super) fn in_docker(&self) -> bool {
        self.servers.values().any(|server| matches!(server.runner, Runner::Compose))
    }

    /// The server that the environment names, if it isn't one of this set. After the
    /// output of `up` was evaluated the environment names servers of this set; xtask
    /// still starts and stops those.
    pub(super) fn named(&self, kind: Kind) -> Option<String> {
        let address = env::var(kind.variable()).ok().filter(|address| !address.is_empty())?;
        let ours = self.server(kind).is_some_and(|server| server.address(kind) == address);
        (!ours).then_some(address)
    }
}

impl Server {
    pub(super) fn address(&self, kind: Kind) -> String {
        kind.address(self.port)
    }

    /// Whether it is still the server that was started, and is ready. It has several
    /// tries, because a busy server may miss some.
    pub(super) fn answers(&self, kind: Kind, services: &Path) -> bool {
        let alive = match self.runner {
            Runner::Process { pid } => process::is_ours(pid, &kind.directory(services)),
            Runner::Compose => true,
            Runner::Nobody => false,
        };
        alive && (0..5).any(|_| kind.probe(&self.address(kind)).is_ok())
    }
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Compose => f.write_str("Docker Compose"),
            Self::Nobody => f.write_str("stopped"),
        }
    }
}

const FILE: &str = "state.json";
