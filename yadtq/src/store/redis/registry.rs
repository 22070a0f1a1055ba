//! The registry of workers: sorted sets for who lives, and a hash each for readers.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use fred::{
    interfaces::{HashesInterface, KeysInterface, SortedSetsInterface},
    types::Value,
};
use serde_json::{Map, Value as Json};
use tokio::time::timeout;

use super::{
    RedisStore,
    call::{Args, Call, Resend, Script},
    codec,
};
use crate::{
    core::{
        names::WorkerId,
        ownership::USED_UP_MS,
        registry::{BEAT_MS, Beat, LIVE, NOTICE_MS, WALK},
    },
    store::{Beaten, Registry, StoreError, WorkerInfo, ttl},
};

const DEAD: &str = include_str!("lua/dead.lua");

static DESCRIBE: Script = Script::new(&[include_str!("lua/describe.lua")]);
static BEAT: Script = Script::new(&[DEAD, include_str!("lua/beat.lua")]);
static LEAVE: Script = Script::new(&[DEAD, include_str!("lua/leave.lua")]);

/// Time between two writes of a worker's hash, which is large: 2 s.
const INFO_INTERVAL: Duration = Duration::from_secs(2);
/// The same, if nothing has changed.
const SAME_INFO_INTERVAL: Duration = Duration::from_secs(20);
/// Longest time that a heartbeat waits for that: 500 ms.
const INFO_TIMEOUT: Duration = Duration::from_millis(500);
/// Fields that are text as they are; the others are written as JSON.
const PLAIN: [&str; 3] = ["id", "host", "version"];

/// What this process knows of its own heartbeats.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    /// A connection by its generation, and the store's time, in ms, in the first heartbeat that was answered over it, or after a pause.
    since: Mutex<Option<(u64, u64)>>,
    /// What was written of each worker, and when.
    written: Mutex<HashMap<String, (WorkerInfo, Instant)>>,
}

impl Heartbeats {
    fn since_ms(&self, generation: u64) -> Option<u64> {
        lock(&self.since).filter(|(of, _)| *of == generation).map(|(_, ms)| ms)
    }

    fn is_info_due(&self, worker: &WorkerInfo) -> bool {
        lock(&self.written).get(&worker.id).is_none_or(|(written, at)| {
            at.elapsed() >= if written == worker { SAME_INFO_INTERVAL } else { INFO_INTERVAL }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Registry for RedisStore {
    async fn beat(&self, worker: &WorkerInfo, answered_ms: u64, lease_ms: u64) -> Result<Beaten, StoreError> {
        // What readers see lies at another master of a cluster, which may be away or slow: it is written with a later heartbeat.
        let info = timeout(INFO_TIMEOUT, self.write_if_due(worker));
        let (beaten, written) = futures_util::join!(self.send_beat(worker, answered_ms, lease_ms), info);
        let (mut beaten, lost) = beaten?;
        if let Ok(Err(error)) = written
            && !error.is_outage()
        {
            return Err(error);
        }
        for (id, seen_ms) in lost {
            // Nobody else learns of it from the store, even if what it said of itself cannot be read.
            let known = self.read_worker(&id, seen_ms).await.ok().flatten();
            beaten.lost.push(known.unwrap_or_else(|| WorkerInfo { id: id.clone(), seen_ms, ..WorkerInfo::default() }));
            // The hash lapses by itself.
            let _ = self.forget_worker(&id).await;
        }
        Ok(beaten)
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        lock(&self.heartbeats.written).remove(worker);
        let mut args = self.registry_keys();
        args.text(worker).number(USED_UP_MS).number(ttl::FLEET);
        self.send(&LEAVE, &[Call { args, keys: 4 }]).await?;
        self.forget_worker(worker).await
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        let key = self.keys.workers();
        let connection = self.connections.of(&key).await?;
        let beats =
            connection.client().zrange::<Vec<(String, u64)>, _, _, _>(key, 0, -1, None, false, None, true).await;
        let beats = beats.map_err(self.store_error(&connection))?;
        let reads = beats.iter().map(|(id, seen_at)| self.read_worker(id, *seen_at));
        let infos = futures_util::future::try_join_all(reads).await?;
        Ok(infos.into_iter().flatten().collect())
    }
}

impl RedisStore {
    /// The keys of all scripts of the registry.
    fn registry_keys(&self) -> Args {
        let mut args = Args::default();
        for key in self.fleet_keys() {
            args.text(&key);
        }
        args
    }

    pub(super) fn fleet_keys(&self) -> [String; 4] {
        let [ring, suspects, dead] = ["ring", "suspects", "dead"].map(|part| self.keys.workers_part(part));
        [self.keys.workers(), ring, suspects, dead]
    }

    /// The answer, and who was declared dead by it, with the last heartbeat in ms.
    async fn send_beat(
        &self, worker: &WorkerInfo, answered_ms: u64, lease_ms: u64,
    ) -> Result<(Beaten, Vec<(String, u64)>), StoreError> {
        let registry = self.keys.workers();
        let generation = self.connections.generation(&registry);
        let since_ms = generation.and_then(|generation| self.heartbeats.since_ms(generation));
        let id: WorkerId = worker.id.as_str().into();
        let may_listen = self.rights.may_subscribe();
        let by = Beat { worker: &id, since_ms, answered_ms, lease_ms, may_listen };
        let (beaten, lost) = self.beat_by(&by).await?;
        let is_first = since_ms.is_none() || by.was_away(beaten.now_us / 1_000);
        if let Some(generation) = generation.filter(|_| is_first)
            && self.connections.generation(&registry) == Some(generation)
        {
            *lock(&self.heartbeats.since) = Some((generation, beaten.now_us / 1_000));
        }
        Ok((beaten, lost))
    }

    /// Sends a heartbeat, and reads the answer.
    pub(super) async fn beat_by(&self, by: &Beat<'_>) -> Result<(Beaten, Vec<(String, u64)>), StoreError> {
        let mut args = self.registry_keys();
        args.text(by.worker).optional(by.since_ms.map(|ms| ms.to_string()).as_deref());
        args.number(by.answered_ms).number(by.lease_ms).number(USED_UP_MS).number(ttl::FLEET);
        args.number(NOTICE_MS).number(BEAT_MS).number(LIVE).number(WALK);
        // In a cluster a node knows of its own subscribers only.
        let channels = if self.is_clustered { String::new() } else { self.keys.control_prefix() };
        args.text(&channels).number(u8::from(by.may_listen));
        // Over another connection `since` would make a false witness.
        let resend = if by.since_ms.is_some() { Resend::Never } else { Resend::AfterReconnect };
        let answer = self.send_with(&BEAT, &[Call { args, keys: 4 }], resend).await?.remove(0).into_array();
        let [now_us, is_gone, is_new, is_subscribed, again, lost, dead] = <[Value; 7]>::try_from(answer)
            .map_err(|answer| StoreError::Refused(format!("a heartbeat was answered by {answer:?}")))?;
        let lost = lost.into_array();
        let lost = lost.chunks_exact(2).map(|pair| (codec::text(&pair[0]), codec::text(&pair[1]).parse().unwrap_or(0)));
        let beaten = Beaten {
            is_gone: is_gone.as_i64() == Some(1),
            is_new: is_new.as_i64() == Some(1),
            now_us: codec::text(&now_us).parse().unwrap_or_default(),
            is_subscribed: is_subscribed.as_i64() == Some(1),
            lost: Vec::new(),
            dead: dead.into_array().iter().map(|id| codec::text(id).into()).collect(),
            look_again_ms: again.as_u64(),
        };
        Ok((beaten, lost.collect()))
    }

    /// Writes what readers see of the worker, unless that was done just now.
    async fn write_if_due(&self, worker: &WorkerInfo) -> Result<(), StoreError> {
        if self.heartbeats.is_info_due(worker) {
            self.write_worker(worker, ttl::WORKER).await?;
            lock(&self.heartbeats.written).insert(worker.id.clone(), (worker.clone(), Instant::now()));
        }
        Ok(())
    }

    async fn write_worker(&self, worker: &WorkerInfo, ttl_ms: u64) -> Result<(), StoreError> {
        let Ok(Json::Object(fields)) = serde_json::to_value(worker) else { unreachable!("it is a struct") };
        let mut args = Args::default();
        args.text(&self.keys.worker(&worker.id)).number(ttl_ms);
        for (name, value) in fields.into_iter().filter(|(name, _)| name != "seen-at") {
            match value {
                Json::String(text) => args.text(&name).text(&text),
                other => args.text(&name).number(other),
            };
        }
        self.send(&DESCRIBE, &[Call { args, keys: 1 }]).await.map(drop)
    }

    async fn forget_worker(&self, id: &str) -> Result<(), StoreError> {
        let key = self.keys.worker(id);
        let connection = self.connections.of(&key).await?;
        connection.client().del::<(), _>(key).await.map_err(self.store_error(&connection))
    }

    /// A worker's hash; `None` if it has lapsed or is written in a way that this version can't read.
    async fn read_worker(&self, id: &str, seen_at: u64) -> Result<Option<WorkerInfo>, StoreError> {
        let key = self.keys.worker(id);
        let connection = self.connections.of(&key).await?;
        let fields = connection.client().hgetall::<Vec<(String, String)>, _>(key).await;
        let fields = fields.map_err(self.store_error(&connection))?;
        let mut json = Map::new();
        for (name, text) in fields {
            let value = if PLAIN.contains(&&*name) { Json::String(text) } else { text.parse().unwrap_or_default() };
            json.insert(name, value);
        }
        json.insert("seen-at".to_owned(), seen_at.into());
        Ok(serde_json::from_value(Json::Object(json)).ok())
    }
}
