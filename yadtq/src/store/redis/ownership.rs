//! Ownership of partitions in Redis: nine keys for each topic.

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Script, read},
    codec,
};
use crate::{
    core::ownership::{MEMBERS_PER_MS, OwnRequest, Owned, Owner, Partitions, USED_UP_MS},
    store::{Answers, Ownership, StoreError, ttl},
};

static OWN: Script = Script::new(&[include_str!("lua/own.lua")]);

/// What follows a topic's own key, in the order of the script.
const PARTS: [&str; 8] = ["leases", "members", "owned", "epochs", "free", "unknown", "gone", "short"];

#[async_trait]
impl Ownership for RedisStore {
    async fn own(&self, by: &Owner, requests: &[OwnRequest]) -> Answers<Owned> {
        let keys = |args: &mut Args, request: &OwnRequest| {
            for key in self.owners_keys(&request.topic) {
                args.text(&key);
            }
        };
        let shared = |args: &mut Args| {
            args.text(&by.worker).number(by.slots).number(by.lease_ms).number(u8::from(by.is_leaving));
            args.text(&by.dead.join(" ")).number(USED_UP_MS).number(MEMBERS_PER_MS).number(ttl::FLEET);
            args.text(&self.keys.control_prefix()).number(by.left_ms);
        };
        let each = |args: &mut Args, request: &OwnRequest| {
            args.number(request.partitions).number(u8::from(request.is_used));
            args.partitions(&request.keep).partitions(&request.give);
        };
        let answers = self.batch_of(&OWN, requests, keys, shared, each).await?;
        let owned = |(request, [code, owns, give, again]): (&OwnRequest, [Value; 4])| match code.as_i64() {
            Some(0) => Ok(Owned::Gone),
            Some(_) => Ok(Owned::Owns {
                partitions: partitions(&codec::text(&owns)),
                give: give.as_usize().unwrap_or_default(),
                again_ms: again.as_u64().unwrap_or_default(),
            }),
            None => {
                let key = self.keys.owners(&request.topic);
                Err(StoreError::WrongType { key, detail: codec::text(&code) })
            }
        };
        Ok(read(requests, answers, owned))
    }
}

impl RedisStore {
    /// All keys of a topic, in the order of the script.
    pub(super) fn owners_keys(&self, topic: &str) -> Vec<String> {
        let topic = self.keys.owners(topic);
        let parts = PARTS.map(|part| format!("{topic}:{part}"));
        std::iter::once(topic).chain(parts).collect()
    }
}

/// Reads `partition:epoch`, with blanks between them.
fn partitions(text: &str) -> Partitions {
    let pair = |pair: &str| {
        let (partition, epoch) = pair.split_once(':')?;
        Some((partition.parse().ok()?, epoch.parse().ok()?))
    };
    text.split(' ').filter_map(pair).collect()
}
