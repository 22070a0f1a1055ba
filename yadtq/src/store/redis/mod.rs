//! The store in Redis: a hash per task, every transition a Lua script.
//!
//! ```text
//!  RedisStore ── scripts ── call ──► connection ──► Redis        claim, complete, ...: answers
//!             ── replies ──────────► connection ◄── Redis        published by `complete.lua`
//! ```
//! Redis is authoritative on its own clock: a script takes the time from `TIME`. A call may reach Redis twice,
//! because fred sends again after a reconnect; the transitions allow for it. When Redis does not answer, a call
//! fails after 5 s, and the connection goes on trying.

mod call;
mod codec;
mod connection;
mod keys;
mod limits;
mod periodics;
mod registry;
mod replies;
mod scripts;
mod server;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod uniques;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, config::Config},
};

use self::{
    connection::{Commands, Connection},
    keys::Keys,
    replies::RedisReplies,
};
use super::{
    Answers, Completion, Entry, Handover, Lease, Occupation, Place, Replies, Report, Reservation, Revival, Store,
    StoreError, StoreInfo, Submission, WorkerInfo,
};
use crate::core::{
    lifecycle::{Ask, Claim, Claimer, Extended, HandedOn, Replay, Revocation, TaskState, Verdict},
    limits::Admission,
    names::{ClientId, Namespace, TaskId, WorkerId},
    ticks::{Declaration, Declared, Known},
    unique::{Reserved, UniqueKey},
};

/// A store in Redis.
#[derive(Debug)]
pub struct RedisStore {
    keys: Keys,
    config: Config,
    connection: Connection,
    is_clustered: bool,
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
    pub fn connect(url: &str, namespace: &Namespace) -> Result<Arc<Self>, StoreError> {
        let config = connection::parse(url)?;
        let connection = Connection::open(&config, Commands);
        let is_clustered = config.server.is_clustered();
        Ok(Arc::new(Self { keys: Keys::new(namespace), config, connection, is_clustered }))
    }

    /// Turns fred's errors into ours.
    fn told(&self) -> impl Fn(Error) -> StoreError {
        |error| self.connection.error(&error)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn submit(&self, tasks: &[Submission]) -> Result<(), StoreError> {
        self.run_submit(tasks).await
    }

    async fn reserve(&self, keys: &[Reservation]) -> Answers<Reserved> {
        self.run_reserve(keys).await
    }

    async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool> {
        self.run_confirm(keys).await
    }

    async fn claim(&self, by: &Claimer, asks: &[(TaskId, Arc<Ask>)]) -> Answers<Claim> {
        self.run_claim(by, asks).await
    }

    async fn complete(&self, runs: &[Completion]) -> Answers<Verdict> {
        self.run_complete(runs).await
    }

    async fn hand_on(&self, runs: &[Handover]) -> Answers<HandedOn> {
        self.run_hand_on(runs).await
    }

    async fn extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended> {
        self.run_extend(worker, lease_ms, leases).await
    }

    async fn admit(&self, entries: &[Entry]) -> Answers<Admission> {
        self.run_admit(entries).await
    }

    async fn occupy(&self, lease_ms: u64, runs: &[Occupation]) -> Answers<Option<u64>> {
        self.run_occupy(lease_ms, runs).await
    }

    async fn vacate(&self, places: &[Place]) -> Result<(), StoreError> {
        self.run_vacate(places).await
    }

    async fn progress(&self, reports: &[Report]) -> Answers<bool> {
        self.run_progress(reports).await
    }

    async fn release(&self, leases: &[Lease]) -> Answers<Verdict> {
        self.run_release(leases).await
    }

    async fn revoke(&self, ids: &[TaskId]) -> Answers<Revocation> {
        self.run_revoke(ids).await
    }

    async fn replay(&self, dead: &[Revival]) -> Answers<Replay> {
        self.run_replay(dead).await
    }

    async fn control(&self, worker: &WorkerId) -> Result<Box<dyn Replies>, StoreError> {
        Ok(Box::new(RedisReplies::control(&self.config, self.keys.control(worker))))
    }

    async fn read(&self, ids: &[TaskId], waiter: Option<&ClientId>) -> Answers<Option<TaskState>> {
        self.run_read(ids, waiter, false).await
    }

    async fn watch(&self, ids: &[TaskId], watcher: &ClientId) -> Answers<Option<TaskState>> {
        self.run_read(ids, Some(watcher), true).await
    }

    async fn replies(&self, client: &ClientId) -> Result<Box<dyn Replies>, StoreError> {
        Ok(Box::new(RedisReplies::open(&self.config, self.keys.reply(client))))
    }

    async fn beat(&self, worker: &WorkerInfo, lost_after_ms: Option<u64>) -> Result<Vec<WorkerInfo>, StoreError> {
        self.beat_worker(worker, lost_after_ms).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.remove_worker(worker).await
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        self.list_workers().await
    }

    async fn declare(&self, tasks: &[Declaration]) -> Answers<Known> {
        self.declare_periodics(tasks).await
    }

    async fn periodics(&self) -> Result<Vec<(Arc<str>, Declared)>, StoreError> {
        self.list_periodics().await
    }

    async fn ping(&self) -> Result<StoreInfo, StoreError> {
        let info: String = self.connection.client().info(None).await.map_err(self.told())?;
        Ok(server::describe(&info, self.connection.server()))
    }

    fn connected_for(&self) -> Option<Duration> {
        self.connection.connected_for()
    }

    async fn now_us(&self) -> Result<u64, StoreError> {
        let time = CustomCommand::new_static("TIME", ClusterHash::Random, false);
        let (seconds, micros): (u64, u64) =
            self.connection.client().custom(time, Vec::<String>::new()).await.map_err(self.told())?;
        Ok(seconds * 1_000_000 + micros)
    }
}
