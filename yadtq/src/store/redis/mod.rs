//! The store in Redis: a hash per task, every transition a Lua script.
//!
//! ```text
//!  RedisStore ── tasks, limits, .. ── call ──► connection ──► Redis        claim, finish, ..: answers
//!             ── channels ───────────────────► connection ◄── Redis        published by `finish.lua`, `revoke.lua`, ..
//! ```
//! Each role of the store has a file, next to the scripts that it sends.
//!
//! Redis is authoritative on its own clock: a script takes the time from `TIME`. A call may reach Redis twice,
//! because fred sends again after a reconnect; the transitions allow for it. When Redis does not answer, a call
//! fails after 5 s, and the connection goes on trying.

mod call;
mod channels;
mod codec;
mod connection;
#[cfg(test)]
mod histories;
mod keys;
mod limits;
mod ownership;
mod periodic_tasks;
mod refusal;
mod registry;
mod rights;
mod server;
mod slots;
#[cfg(test)]
pub(super) mod stage;
mod tasks;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod unique_keys;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, config::Config},
};

use self::{
    connection::{Commands, Connection},
    keys::Keys,
    registry::Heartbeats,
    rights::Rights,
};
use super::{Store, StoreError, StoreInfo};
use crate::core::{names::Namespace, secret::Secret};

/// A store in Redis.
pub(crate) struct RedisStore {
    keys: Keys,
    config: Config,
    connection: Connection,
    heartbeats: Heartbeats,
    rights: Arc<Rights>,
    is_clustered: bool,
    #[cfg(test)]
    prelude: std::sync::OnceLock<stage::Prelude>,
}

impl RedisStore {
    /// A store at `redis://[user:password@]host[:port][/database]`, `rediss://` (with the feature `tls`),
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
    pub(crate) fn connect(url: &str, namespace: &Namespace) -> Result<Arc<Self>, StoreError> {
        let config = connection::parse(&Secret::new(url))?;
        let is_clustered = config.server.is_clustered();
        let (keys, heartbeats) = (Keys::new(namespace), Heartbeats::default());
        let connection = Connection::open(&config, Commands { probe: keys.probe() });
        Ok(Arc::new(Self {
            keys,
            config,
            connection,
            heartbeats,
            rights: Arc::default(),
            is_clustered,
            #[cfg(test)]
            prelude: std::sync::OnceLock::new(),
        }))
    }

    /// Turns fred's errors into ours.
    fn store_error(&self) -> impl Fn(Error) -> StoreError {
        |error| self.connection.error(&error)
    }
}

/// Leaves out fred's configuration and client, which show passwords.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("server", &self.connection.server()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn ping(&self) -> Result<StoreInfo, StoreError> {
        let mut info = match self.connection.client().info::<String>(None).await {
            Err(error) if rights::is_denied(error.details()) => server::unknown(self.connection.server()),
            answer => server::describe(&answer.map_err(self.store_error())?, self.connection.server()),
        };
        info.warnings.extend(self.missing_rights().await?);
        Ok(info)
    }

    fn connected_for(&self) -> Option<Duration> {
        self.connection.connected_for()
    }

    async fn now_us(&self) -> Result<u64, StoreError> {
        let time = CustomCommand::new_static("TIME", ClusterHash::Random, false);
        let (seconds, micros): (u64, u64) =
            self.connection.client().custom(time, Vec::<String>::new()).await.map_err(self.store_error())?;
        Ok(seconds * 1_000_000 + micros)
    }
}
