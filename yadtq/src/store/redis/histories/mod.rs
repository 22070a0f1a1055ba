//! Random histories of a fleet, played on the Redis scripts and on the pure functions: answers must be the same, to the ms.
//!
//! Both need the same time, and the same subscriptions. So the scripts are sent with a few words changed: what they ask Redis for is
//! read from keys that the test has written, and whom they would wake they write down.
#![allow(clippy::unwrap_used)]

mod ownership;
mod registry;

use std::{collections::BTreeSet, sync::Arc};

use fred::interfaces::{HashesInterface, KeysInterface};

use super::{RedisStore, call::Script, testing::redis_for_test};
use crate::core::names::WorkerId;

/// A Redis with a clock and subscriptions of the test's.
struct Stage {
    redis: Arc<RedisStore>,
}

impl Stage {
    async fn new() -> Self {
        Self { redis: redis_for_test().await }
    }

    fn clock(&self) -> String {
        self.redis.keys.owners("test clock")
    }

    fn subscribed(&self) -> String {
        self.redis.keys.owners("test subscriptions")
    }

    fn woken(&self) -> String {
        self.redis.keys.owners("test woken")
    }

    /// A script that takes the time from the test's clock, with another change if there is one: a word of it, and what stands there instead.
    fn script(&self, texts: &[&str], change: Option<(&str, String)>) -> Script {
        let mut text = texts.concat();
        let time = ("call('TIME')", format!("call('HMGET', '{}', 's', 'us')", self.clock()));
        for (real, staged) in std::iter::once(time).chain(change) {
            assert_eq!(text.matches(real).count(), 1, "{real} stands once in {text}");
            text = text.replace(real, &staged);
        }
        Script::new(Vec::leak(vec![&*String::leak(text)]))
    }

    /// Sets the clock, to the last µs of a ms.
    async fn set_clock(&self, now_ms: u64) {
        let time = vec![("s", now_ms / 1_000), ("us", now_ms % 1_000 * 1_000 + 999)];
        self.redis.connection.client().hset::<(), _, _>(self.clock(), time).await.unwrap();
    }

    async fn subscribe(&self, channel: String, is_subscribed: bool) {
        let client = self.redis.connection.client();
        if is_subscribed {
            client.hset::<(), _, _>(self.subscribed(), (channel, 1)).await.unwrap();
        } else {
            client.hdel::<(), _, _>(self.subscribed(), channel).await.unwrap();
        }
    }

    /// Whom the scripts have woken since the last look.
    async fn take_woken(&self) -> BTreeSet<WorkerId> {
        let client = self.redis.connection.client();
        let woken: Vec<String> = client.hkeys(self.woken()).await.unwrap();
        if !woken.is_empty() {
            client.del::<(), _>(self.woken()).await.unwrap();
        }
        woken.into_iter().map(WorkerId::from).collect()
    }

    async fn forget(&self, keys: Vec<String>) {
        self.redis.connection.client().del::<(), _>(keys).await.unwrap();
    }
}
