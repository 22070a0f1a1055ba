//! Free slots in Redis: four keys for each queue.

use async_trait::async_trait;
use fred::{
    interfaces::{ClientLike, PubsubInterface},
    types::{Value, config::Options},
};
use futures_util::future::join_all;

use super::{
    RedisStore,
    call::{Args, Script, read},
    codec, rights,
};
use crate::{
    core::{
        names::WorkerId,
        slots::{ANNOUNCED_MS, LOOKED_AT, MOST_ANNOUNCED, WAITING_MS},
    },
    store::{Answers, FreeSlots, Slots, StoreError, WantedSlots},
    wire::offer::WorkerMessage,
};

static ANNOUNCE: Script = Script::new(&[include_str!("lua/announce.lua")]);
static TAKE_SLOTS: Script = Script::new(&[include_str!("lua/take_slots.lua")]);

#[async_trait]
impl Slots for RedisStore {
    async fn announce(&self, by: &WorkerId, slots: &[FreeSlots]) -> Result<(), StoreError> {
        let shared = |args: &mut Args| {
            args.text(by).number(ANNOUNCED_MS).number(MOST_ANNOUNCED).text(&self.keys.control_prefix());
        };
        let each = |args: &mut Args, FreeSlots { tasks, count, .. }: &FreeSlots| {
            args.text(&tasks.digest).text(&tasks.names).number(count);
        };
        let keys = |args: &mut Args, slots: &FreeSlots| self.idle_keys(args, &slots.queue);
        // Nobody could send anything for them.
        if !self.rights.may_subscribe() {
            return Ok(());
        }
        let answers = self.batch_of::<_, 1>(&ANNOUNCE, slots, keys, shared, each).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    async fn take_slots(&self, by: &WorkerId, wanted: &[WantedSlots]) -> Answers<Vec<(WorkerId, usize)>> {
        let shared = |args: &mut Args| {
            args.text(by).number(WAITING_MS).number(LOOKED_AT).number(MOST_ANNOUNCED);
        };
        let each = |args: &mut Args, WantedSlots { task, count, .. }: &WantedSlots| {
            args.text(task).number(count);
        };
        let keys = |args: &mut Args, wanted: &WantedSlots| self.idle_keys(args, &wanted.queue);
        if !self.rights.may_publish() {
            return Ok(wanted.iter().map(|_| Ok(Vec::new())).collect());
        }
        // What was taken by a call whose answer was lost is announced again; a second call would take more.
        let answers = self.batch_once(&TAKE_SLOTS, wanted, keys, shared, each).await?;
        let taken = |(wanted, [code, slots]): (&WantedSlots, [Value; 2])| match code.as_i64() {
            Some(_) => Ok(codec::text(&slots).split_whitespace().filter_map(slots_of).collect()),
            None => Err(StoreError::WrongType { key: self.keys.idle(&wanted.queue), detail: codec::text(&code) }),
        };
        Ok(read(wanted, answers, taken))
    }

    async fn send(&self, messages: &[(WorkerId, WorkerMessage)]) -> Answers<bool> {
        let connection = self.connections.any().await?;
        let client = connection.client();
        let once = Options { max_attempts: Some(1), fail_fast: true, ..Options::default() };
        let client = client.with_options(&once);
        let sends = messages.iter().map(async |(to, message)| {
            let channel = self.keys.control(to);
            let receivers: i64 = match client.publish(&channel, message.encode()).await {
                Err(error) if rights::is_denied(error.details()) => {
                    if self.rights.publish_refused() {
                        rights::log_denied(&channel, error.details());
                    }
                    return Ok(false);
                }
                answer => answer.map_err(self.store_error(&connection))?,
            };
            // In a cluster a node knows of its own subscribers only.
            Ok(receivers > 0 || self.is_clustered)
        });
        Ok(join_all(sends).await)
    }
}

impl RedisStore {
    fn idle_keys(&self, args: &mut Args, queue: &str) {
        let idle = self.keys.idle(queue);
        args.text(&idle);
        for part in ["slots", "sets", "waiting"] {
            args.text(&format!("{idle}:{part}"));
        }
    }
}

/// Reads `worker:count`.
fn slots_of(text: &str) -> Option<(WorkerId, usize)> {
    let (worker, count) = text.rsplit_once(':')?;
    Some((worker.into(), count.parse().ok()?))
}
