//! How a store reaches its servers: over one connection, or in a cluster over one to each master.

use std::{sync::Arc, time::Duration};

use fred::{error::Error, types::config::Config, util::redis_keyslot};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    cluster::{Cluster, Masters},
    connection::{Commands, Connection, Purpose},
};
use crate::{restart, store::StoreError};

/// Time between the end of a subscription and the next one, at another master: 100 ms.
const SUBSCRIBE_DELAY: Duration = Duration::from_millis(100);

/// The connections for everything but replies.
pub(super) enum Connections {
    One(Arc<Connection>),
    Cluster(Cluster),
}

impl Connections {
    /// Opens connections on the current Tokio runtime, and returns at once. `probe`: a key that may be written to see whether the
    /// server takes writes.
    pub(super) fn open(config: &Config, probe: String) -> Self {
        match config.server.is_clustered() {
            true => Self::Cluster(Cluster::open(config)),
            false => Self::One(Arc::new(Connection::open(config, Commands { probe }))),
        }
    }

    /// The connection to the server that has this key, if it is there.
    pub(super) async fn of(&self, key: &str) -> Result<Arc<Connection>, StoreError> {
        match self {
            Self::One(connection) => Ok(Arc::clone(connection)),
            Self::Cluster(cluster) => {
                let connection = cluster.masters.of(key.as_bytes()).await?;
                connection.ready().await?;
                Ok(connection)
            }
        }
    }

    /// The connection to any server.
    pub(super) async fn any(&self) -> Result<Arc<Connection>, StoreError> {
        match self {
            Self::One(connection) => Ok(Arc::clone(connection)),
            Self::Cluster(cluster) => {
                let connection = cluster.masters.any().await?;
                connection.ready().await?;
                Ok(connection)
            }
        }
    }

    /// The connections to all servers that are there.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        let all = match self {
            Self::One(connection) => vec![Arc::clone(connection)],
            Self::Cluster(cluster) => cluster.masters.by_age(),
        };
        all.into_iter().filter(|connection| connection.connected_for().is_some()).collect()
    }

    /// What an error of a command means to its caller.
    pub(super) fn error(&self, connection: &Connection, error: &Error) -> StoreError {
        if let Self::Cluster(cluster) = self
            && (error.details().starts_with("MOVED") || error.details().starts_with("ASK"))
        {
            cluster.masters.look_again();
        }
        connection.error(error)
    }

    /// How long the connection has been up without a break or a refused write; in a cluster, that which has been up longest.
    pub(super) fn connected_for(&self) -> Option<Duration> {
        match self {
            Self::One(connection) => connection.connected_for(),
            Self::Cluster(cluster) => cluster.masters.connected_for(),
        }
    }

    /// The same, of the connection to the server that has this key.
    pub(super) fn connected_to(&self, key: &str) -> Option<Duration> {
        self.now(key)?.connected_for()
    }

    /// Which connection leads to the server that has this key, by a number that changes with every break and every refused write.
    pub(super) fn generation(&self, key: &str) -> Option<u64> {
        Some(self.now(key)?.generation())
    }

    /// Masters that are away.
    pub(super) fn away(&self) -> Vec<StoreError> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.masters.away(),
        }
    }

    /// Listens on a channel. `home`: a key; if its master is there, that is where to listen.
    pub(super) fn listen<P: Purpose>(&self, config: &Config, home: &str, purpose: P) -> Listening {
        match self {
            Self::One(_) => Listening::One { _connection: Connection::open(config, purpose) },
            Self::Cluster(cluster) => {
                let (masters, slot) = (Arc::clone(&cluster.masters), redis_keyslot(home.as_bytes()));
                let purpose = Arc::new(purpose);
                let listen = move || listen(Arc::clone(&masters), slot, Arc::clone(&purpose));
                Listening::Cluster(tokio::spawn(restart::run("redis subscription", listen)))
            }
        }
    }

    fn now(&self, key: &str) -> Option<Arc<Connection>> {
        match self {
            Self::One(connection) => Some(Arc::clone(connection)),
            Self::Cluster(cluster) => cluster.masters.has(redis_keyslot(key.as_bytes())),
        }
    }
}

/// A subscription, for as long as this lives.
pub(super) enum Listening {
    One { _connection: Connection },
    Cluster(JoinHandle<()>),
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Self::Cluster(task) = self {
            task.abort();
        }
    }
}

/// Listens at one master after the other: a message reaches the subscribers of all nodes.
async fn listen<P: Purpose>(masters: Arc<Masters>, slot: u16, purpose: Arc<P>) {
    loop {
        if let Some(server) = masters.subscribe_at(slot).await {
            let connection = Connection::open_node(masters.config(), &server, Arc::clone(&purpose));
            connection.lost().await;
        }
        sleep(SUBSCRIBE_DELAY).await;
    }
}
