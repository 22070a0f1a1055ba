//! The store in Redis: a hash per task, every transition a Lua script.
//!
//! ```text
//!  RedisStore ── tasks, limits, .. ── call ──► connection ──► Redis        claim, finish, ..: answers
//!             ── channels ───────────────────► connection ◄── Redis        published by `finish.lua`, `revoke.lua`, ..
//! ```
//! Each role of the store has a file, next to the scripts that it sends. In a cluster there is a connection to each master, and
//! only `connections`, `cluster` and `send` know that.
//!
//! Redis is authoritative on its own clock: a script takes the time from `TIME`. A call may reach Redis twice,
//! because fred sends again after a reconnect; the transitions allow for it. When Redis does not answer, a call
//! fails after 5 s, and the connection goes on trying.

mod address;
mod call;
mod channels;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod codec;
mod connection;
mod connections;
#[cfg(test)]
mod histories;
mod keys;
mod limits;
mod ownership;
mod periodic_tasks;
mod refusal;
mod registry;
mod rights;
mod send;
mod server;
mod slot_map;
mod slots;
#[cfg(test)]
pub(super) mod stage;
mod tasks;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
#[cfg(feature = "redis-tls")]
mod tls;
mod tls_settings;
mod unique_keys;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, InfoKind, config::Config},
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

pub(crate) use self::tls_settings::TlsSettings;
use self::{connection::Connection, connections::Connections, keys::Keys, registry::Heartbeats, rights::Rights};
use super::{Memory, Store, StoreError, StoreInfo};
use crate::core::{names::Namespace, secret::Secret};

/// How long `ping` looks at how fast a server fills.
const RATE_TIME: Duration = Duration::from_secs(1);

/// A store in Redis.
pub(crate) struct RedisStore {
    keys: Keys,
    config: Config,
    connections: Connections,
    heartbeats: Heartbeats,
    rights: Arc<Rights>,
    is_clustered: bool,
    #[cfg(test)]
    prelude: std::sync::OnceLock<stage::Prelude>,
    /// Leases are taken over from masters that were connected to just now.
    #[cfg(test)]
    trusts_new_masters: std::sync::atomic::AtomicBool,
}

impl RedisStore {
    /// A store at `redis://[user:password@]host[:port][/database]`, `rediss://` (with the feature `redis-tls`),
    /// `redis-cluster://host:port[?node=host:port]` or `redis-sentinel://..`. Returns at once; a server that cannot
    /// be reached is tried again for as long as the store lives.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime. The runtime it is called on is the one that serves the connection.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`] if the address cannot be used.
    pub(crate) fn connect(url: &str, tls: &TlsSettings, namespace: &Namespace) -> Result<Arc<Self>, StoreError> {
        let config = address::parse(&Secret::new(url), tls)?;
        let is_clustered = config.server.is_clustered();
        let (keys, heartbeats) = (Keys::new(namespace), Heartbeats::default());
        let connections = Connections::open(&config, keys.probe());
        Ok(Arc::new(Self {
            keys,
            config,
            connections,
            heartbeats,
            rights: Arc::default(),
            is_clustered,
            #[cfg(test)]
            prelude: std::sync::OnceLock::new(),
            #[cfg(test)]
            trusts_new_masters: false.into(),
        }))
    }

    /// A warning for each server that is nearly full. If there is one, it looks for a second at how fast it fills.
    async fn memory_warnings(&self) -> Vec<String> {
        let before = self.memory().await;
        if !before.iter().any(Memory::is_high) {
            return Vec::new();
        }
        let at = Instant::now();
        sleep(RATE_TIME).await;
        let warning = |after: &Memory| {
            let before = before.iter().find(|before| before.server == after.server)?;
            after.warning(before, at.elapsed())
        };
        self.memory().await.iter().filter_map(warning).collect()
    }

    /// Turns fred's errors into ours.
    fn store_error<'a>(&'a self, connection: &'a Connection) -> impl Fn(Error) -> StoreError + 'a {
        |error| self.connections.error(connection, &error)
    }
}

/// Leaves out fred's configuration and client, which show passwords.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("servers", &self.config.server.hosts()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn ping(&self) -> Result<StoreInfo, StoreError> {
        let connection = self.connections.any().await?;
        let mut info = match connection.client().info::<String>(None).await {
            Err(error) if rights::is_denied(error.details()) => server::unknown(connection.server()),
            answer => server::describe(&answer.map_err(self.store_error(&connection))?, connection.server()),
        };
        info.warnings.extend(self.memory_warnings().await);
        let away = self.connections.away();
        info.warnings.extend(away.iter().map(|error| format!("{error}: tasks whose ids belong to its slots wait")));
        info.warnings.extend(self.missing_rights().await?);
        Ok(info)
    }

    async fn memory(&self) -> Vec<Memory> {
        let ask = async |connection: Arc<Connection>| {
            let answer = connection.client().info::<String>(Some(InfoKind::Memory)).await.ok()?;
            server::memory(&answer, connection.server())
        };
        join_all(self.connections.all().into_iter().map(ask)).await.into_iter().flatten().collect()
    }

    fn connected_for(&self) -> Option<Duration> {
        self.connections.connected_for()
    }

    async fn now_us(&self) -> Result<u64, StoreError> {
        let time = CustomCommand::new_static("TIME", ClusterHash::Random, false);
        let connection = self.connections.any().await?;
        let time = connection.client().custom(time, Vec::<String>::new()).await;
        let (seconds, micros): (u64, u64) = time.map_err(self.store_error(&connection))?;
        Ok(seconds * 1_000_000 + micros)
    }
}
