//! Workers in memory: who lives, and who reads which partitions.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use async_trait::async_trait;

use super::{MemoryStore, control};
use crate::{
    core::{
        names::WorkerId,
        ownership::{self, OwnRequest, Owned, Owner, Topic},
        registry::{self, Beat, Ring},
    },
    store::{Answers, Beaten, Ownership, Registry, StoreError, WorkerInfo, ttl},
};

/// What is known of all workers.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    ring: Ring,
    infos: HashMap<WorkerId, Registration>,
    topics: HashMap<Arc<str>, Topic>,
}

#[derive(Debug)]
struct Registration {
    info: WorkerInfo,
    /// The first heartbeat: nothing breaks the connection to this store.
    since_ms: u64,
    expires_ms: u64,
}

impl Fleet {
    /// Whether the worker was declared dead, or has left.
    pub(super) fn is_dead(&self, worker: &str) -> bool {
        self.ring.is_dead(worker)
    }

    #[cfg(test)]
    pub(super) fn forget_owners(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}

#[async_trait]
impl Registry for MemoryStore {
    async fn beat(&self, worker: &WorkerInfo, answered_ms: u64, lease_ms: u64) -> Result<Beaten, StoreError> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        let inner = &mut *inner;
        let (fleet, mailboxes) = (&mut inner.fleet, &inner.mailboxes);
        let id: WorkerId = worker.id.as_str().into();
        let since_ms = fleet.infos.get(&id).map(|known| known.since_ms);
        let by = Beat { worker: &id, since_ms, answered_ms, lease_ms, may_listen: true };
        let since_ms = since_ms.filter(|_| !by.was_away(now_ms));
        let is_subscribed = |worker: &str| mailboxes.get(&control(worker)).and_then(Weak::upgrade).is_some();
        let pulse = registry::beat(&mut fleet.ring, &by, is_subscribed, now_ms);
        let lost: Vec<_> = pulse.lost.iter().filter_map(|(lost, _)| fleet.infos.remove(lost)).collect();
        if !pulse.is_gone {
            let (info, since_ms) = (WorkerInfo { seen_ms: now_ms, ..worker.clone() }, since_ms.unwrap_or(now_ms));
            fleet.infos.insert(id, Registration { info, since_ms, expires_ms: now_ms + ttl::WORKER });
        }
        Ok(Beaten {
            is_gone: pulse.is_gone,
            is_new: pulse.is_new,
            now_us,
            is_subscribed: pulse.is_subscribed,
            lost: lost.into_iter().filter(|known| known.expires_ms > now_ms).map(|known| known.info).collect(),
            dead: pulse.dead.into_iter().collect(),
            look_again_ms: pulse.look_again_ms,
        })
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        let (mut inner, now_us) = self.lock();
        inner.fleet.infos.remove(worker);
        inner.fleet.ring.remove(&worker.into(), now_us / 1_000);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        let (inner, now_us) = self.lock();
        let live = inner.fleet.infos.values().filter(|worker| worker.expires_ms > now_us / 1_000);
        Ok(live.map(|worker| worker.info.clone()).collect())
    }
}

#[async_trait]
impl Ownership for MemoryStore {
    async fn own(&self, by: &Owner, requests: &[OwnRequest]) -> Answers<Owned> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        let mut wake = Vec::new();
        let own = |request: &OwnRequest| {
            let topic = inner.fleet.topics.entry(Arc::clone(&request.topic)).or_default();
            if topic.last_call_ms() + ttl::FLEET < now_ms {
                *topic = Topic::default();
            }
            let (owned, woken) = ownership::own(topic, by, request, now_ms);
            wake.extend(woken);
            Ok(owned)
        };
        let answers = requests.iter().map(own).collect();
        for worker in wake {
            inner.with_mailbox(&control(&worker), |mailbox| mailbox.own_again());
        }
        Ok(answers)
    }
}
