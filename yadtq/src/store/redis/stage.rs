//! A Redis with a clock, subscriptions and messages of the test's, so that histories can be compared to the ms.
//!
//! The scripts run as they are, behind a few lines that stand in for the commands `TIME`, `PEXPIRE`, `PUBLISH` and `PUBSUB`. These
//! lines read what the test has written, and write down what the script has said.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use fred::{
    interfaces::{ClientLike, HashesInterface, KeysInterface},
    types::CustomCommand,
};

use super::{
    RedisStore,
    call::Script,
    channels::{read_control, read_replies},
    testing::redis_for_test,
};
use crate::{
    core::names::{TaskId, WorkerId},
    store::{conformance::Subject as _, mailbox::Mailbox},
};

const PRELUDE: &str = r"
local redis = (function(server)
  local clock, expiries, messages, subscribed = '{clock}', '{expiries}', '{messages}', '{subscribed}'
  local staged = {}
  function staged.TIME() return server.call('HMGET', clock, 's', 'us') end
  function staged.PEXPIRE(key, ms)
    local done = server.call('PEXPIRE', key, ms)
    if done == 1 then
      local time = staged.TIME()
      local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
      server.call('HSET', expiries, key, string.format('%.0f', now_ms + ms))
    end
    return done
  end
  function staged.DEL(key)
    server.call('HDEL', expiries, key)
    return server.call('DEL', key)
  end
  function staged.PUBLISH(channel, message)
    server.call('RPUSH', messages, channel, message)
    return 1
  end
  function staged.PUBSUB(_, ...)
    local answer = {}
    for i, name in ipairs({ ... }) do
      answer[2 * i - 1], answer[2 * i] = name, server.call('HEXISTS', subscribed, name)
    end
    return answer
  end
  local function stand_in_for(run)
    return function(command, ...)
      local stand_in = staged[command]
      if stand_in then return stand_in(...) end
      return run(command, ...)
    end
  end
  return { call = stand_in_for(server.call), pcall = stand_in_for(server.pcall) }
end)(redis)
";

/// What comes before the text of every script.
#[derive(Debug)]
pub(super) struct Prelude {
    text: String,
    /// The scripts with it, by their own texts.
    scripts: Mutex<HashMap<String, &'static Script>>,
}

impl Prelude {
    pub(super) fn script(&self, script: &Script) -> &'static Script {
        self.scripts.lock().unwrap().entry(script.text()).or_insert_with_key(|text| {
            let text: &'static str = String::leak(format!("{}{text}", self.text));
            Box::leak(Box::new(Script::new(Vec::leak(vec![text]))))
        })
    }
}

pub(in crate::store) struct Stage {
    pub(in crate::store) redis: Arc<RedisStore>,
}

impl Stage {
    pub(in crate::store) async fn new() -> Self {
        let stage = Self { redis: redis_for_test().await };
        let text = ["clock", "expiries", "messages", "subscribed"]
            .iter()
            .fold(PRELUDE.to_owned(), |text, name| text.replace(&format!("{{{name}}}"), &stage.key(name)));
        stage.redis.prelude.set(Prelude { text, scripts: Mutex::default() }).unwrap();
        stage
    }

    fn key(&self, name: &str) -> String {
        self.redis.keys.owners(&format!("test {name}"))
    }

    /// Sets the clock, to the last µs of a ms.
    pub(in crate::store) async fn set_clock(&self, now_ms: u64) {
        let time = vec![("s", now_ms / 1_000), ("us", now_ms % 1_000 * 1_000 + 999)];
        self.redis.client().await.hset::<(), _, _>(self.key("clock"), time).await.unwrap();
    }

    pub(super) async fn subscribe(&self, channel: String, is_subscribed: bool) {
        let client = self.redis.client().await;
        if is_subscribed {
            client.hset::<(), _, _>(self.key("subscribed"), (channel, 1)).await.unwrap();
        } else {
            client.hdel::<(), _, _>(self.key("subscribed"), channel).await.unwrap();
        }
    }

    pub(super) async fn end_subscriptions(&self) {
        self.forget(vec![self.key("subscribed")]).await;
    }

    pub(in crate::store) async fn forget_fleet(&self) {
        self.forget(self.redis.fleet_keys().into()).await;
    }

    pub(super) async fn forget(&self, keys: Vec<String>) {
        self.redis.client().await.del::<(), _>(keys).await.unwrap();
    }

    /// What was published since the last look: channels and messages.
    async fn take_messages(&self) -> Vec<(String, Bytes)> {
        let (client, key) = (self.redis.client().await, self.key("messages"));
        let range = CustomCommand::new_static("LRANGE", None, false);
        let messages: Vec<Bytes> = client.custom(range, vec![&key, "0", "-1"]).await.unwrap();
        if !messages.is_empty() {
            self.forget(vec![key]).await;
        }
        let pairs = messages.chunks_exact(2);
        pairs.map(|pair| (String::from_utf8(pair[0].to_vec()).unwrap(), pair[1].clone())).collect()
    }

    /// Which workers were woken since the last look, to ask for partitions again.
    pub(super) async fn take_woken(&self) -> BTreeSet<WorkerId> {
        let prefix = self.redis.keys.control_prefix();
        let messages = self.take_messages().await.into_iter().filter(|(_, message)| &**message == b"o");
        messages.filter_map(|(channel, _)| channel.strip_prefix(&prefix).map(WorkerId::from)).collect()
    }

    /// Puts what was published since the last look into the mailboxes of clients and workers.
    pub(in crate::store) async fn deliver(
        &self, clients: &BTreeMap<String, Mailbox>, workers: &BTreeMap<String, Mailbox>,
    ) {
        let (replies, control) = (self.redis.keys.reply_prefix(), self.redis.keys.control_prefix());
        for (channel, message) in self.take_messages().await {
            let is_read = match (channel.strip_prefix(&replies), channel.strip_prefix(&control)) {
                (Some(client), _) => read_replies(&message, &clients[client]),
                (_, Some(worker)) => read_control(&message, &workers[worker]),
                _ => false,
            };
            assert!(is_read, "{channel} gets {message:?}");
        }
    }

    /// When the records of these tasks are forgotten, in ms, as far as a script has said so.
    pub(in crate::store) async fn expiries(&self, ids: &[TaskId]) -> Vec<Option<u64>> {
        let keys: Vec<_> = ids.iter().map(|id| self.redis.keys.task(id)).collect();
        self.redis.client().await.hmget(self.key("expiries"), keys).await.unwrap()
    }

    pub(in crate::store) async fn set_expiry(&self, id: &TaskId, at: Option<u64>) {
        let (client, key) = (self.redis.client().await, self.redis.keys.task(id));
        match at {
            Some(at) => client.hset::<(), _, _>(self.key("expiries"), (key, at)).await.unwrap(),
            None => client.hdel::<(), _, _>(self.key("expiries"), key).await.unwrap(),
        }
    }

    /// Forgets the tasks whose time is over.
    pub(in crate::store) async fn lapse(&self, ids: &[TaskId], now_ms: u64) {
        for (id, at) in ids.iter().zip(self.expiries(ids).await) {
            if at.is_some_and(|at| at <= now_ms) {
                self.redis.plant(id, None).await;
                self.set_expiry(id, None).await;
            }
        }
    }

    /// Puts a hash with these fields at the key of a task; without fields something that is none.
    pub(in crate::store) async fn plant_foreign(&self, id: &TaskId, fields: &[(&'static str, &'static str)]) {
        self.redis.plant(id, None).await;
        self.set_expiry(id, None).await;
        if fields.is_empty() {
            self.redis.spoil(id).await;
        } else {
            self.add_fields(id, fields).await;
            self.redis.client().await.expire::<(), _>(self.redis.keys.task(id), 60, None).await.unwrap();
        }
    }

    pub(in crate::store) async fn add_fields(&self, id: &TaskId, fields: &[(&'static str, &'static str)]) {
        let client = self.redis.client().await;
        client.hset::<(), _, _>(self.redis.keys.task(id), fields.to_vec()).await.unwrap();
    }

    /// Everything at the key of a task, in Redis's own format.
    pub(in crate::store) async fn contents(&self, id: &TaskId) -> Option<Bytes> {
        let dump = CustomCommand::new_static("DUMP", None, false);
        self.redis.client().await.custom(dump, vec![self.redis.keys.task(id)]).await.unwrap()
    }
}
