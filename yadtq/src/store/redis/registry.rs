//! The registry of workers: a hash each, and a sorted set of them by last heartbeat.

use fred::interfaces::{FredResult, HashesInterface, KeysInterface, SortedSetsInterface};
use serde_json::{Map, Value as Json};

use super::RedisStore;
use crate::store::{StoreError, WorkerInfo, ttl};

/// Fields that are text as they are; the others are written as JSON.
const PLAIN: [&str; 3] = ["id", "host", "version"];

impl RedisStore {
    pub(super) async fn beat_worker(
        &self, worker: &WorkerInfo, lost_after_ms: Option<u64>,
    ) -> Result<Vec<WorkerInfo>, StoreError> {
        self.write_worker(worker, ttl::WORKER).await.map_err(self.told())?;
        let mut infos = Vec::new();
        for (id, seen_at) in self.run_beat(&worker.id, lost_after_ms).await? {
            infos.extend(self.read_worker(&id, seen_at).await.map_err(self.told())?);
            self.connection.client().del::<(), _>(self.keys.worker(&id)).await.map_err(self.told())?;
        }
        Ok(infos)
    }

    pub(super) async fn remove_worker(&self, id: &str) -> Result<(), StoreError> {
        let client = self.connection.client();
        client.zrem::<(), _, _>(self.keys.workers(), id).await.map_err(self.told())?;
        client.del::<(), _>(self.keys.worker(id)).await.map_err(self.told())
    }

    pub(super) async fn list_workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        let client = self.connection.client();
        let beats = client.zrange::<Vec<(String, u64)>, _, _, _>(self.keys.workers(), 0, -1, None, false, None, true);
        let beats = beats.await.map_err(self.told())?;
        let reads = beats.iter().map(|(id, seen_at)| self.read_worker(id, *seen_at));
        let infos = futures_util::future::try_join_all(reads).await.map_err(self.told())?;
        Ok(infos.into_iter().flatten().collect())
    }

    async fn write_worker(&self, worker: &WorkerInfo, ttl_ms: u64) -> FredResult<()> {
        let Ok(Json::Object(fields)) = serde_json::to_value(worker) else { unreachable!("it is a struct") };
        let fields = fields.into_iter().filter(|(name, _)| name != "seen-at").map(|(name, value)| match value {
            Json::String(text) => (name, text),
            other => (name, other.to_string()),
        });
        let key = self.keys.worker(&worker.id);
        let client = self.connection.client();
        client.hset::<(), _, _>(&key, fields.collect::<Vec<_>>()).await?;
        client.pexpire::<(), _>(&key, i64::try_from(ttl_ms).unwrap_or(i64::MAX), None).await
    }

    /// A worker's hash; `None` if it has lapsed or is written in a way that this version can't read.
    async fn read_worker(&self, id: &str, seen_at: u64) -> FredResult<Option<WorkerInfo>> {
        let fields: Vec<(String, String)> = self.connection.client().hgetall(self.keys.worker(id)).await?;
        let mut json = Map::new();
        for (name, text) in fields {
            let value = if PLAIN.contains(&&*name) { Json::String(text) } else { text.parse().unwrap_or_default() };
            json.insert(name, value);
        }
        json.insert("seen-at".to_owned(), seen_at.into());
        Ok(serde_json::from_value(Json::Object(json)).ok())
    }
}
