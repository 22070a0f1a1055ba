//! Periodic tasks: a hash each, and a sorted set of their names by when they are forgotten.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use fred::{
    interfaces::{HashesInterface, SortedSetsInterface},
    types::Value,
};
use futures_util::future::try_join_all;

use super::{
    RedisStore,
    call::{Args, Call, Script, read},
    codec,
};
use crate::{
    core::ticks::{Declaration, Declared, Known},
    store::{Answers, PeriodicTasks, StoreError, ttl},
};

static DECLARE: Script = Script::new(&[include_str!("lua/declare.lua")]);
static LIST_NAMES: Script = Script::new(&[include_str!("lua/list_names.lua")]);

#[async_trait]
impl PeriodicTasks for RedisStore {
    async fn declare(&self, tasks: &[Declaration]) -> Answers<Known> {
        let optional = |ms: Option<u64>| ms.map(|ms| ms.to_string());
        let key = |args: &mut Args, by: &Declaration| {
            args.text(&self.keys.tick(&by.name));
        };
        let each = |args: &mut Args, by: &Declaration| {
            args.number(by.now).number(by.ttl_ms(ttl::WAITING)).text(&by.schedule).optional(by.zone.as_deref());
            args.text(by.missed.as_str()).text(&by.task).text(&by.queue);
            args.optional(optional(by.next).as_deref()).optional(optional(by.last).as_deref());
        };
        let answers = self.batch_of(&DECLARE, tasks, key, |_| (), each).await?;
        match self.list_names(tasks).await {
            // Its master is away; the next declaration lists them.
            Err(error) if self.is_clustered && error.is_outage() => {}
            listed => listed?,
        }
        let known = |(by, [last, since]): (&Declaration, [Value; 2])| {
            let since = codec::text(&since).parse();
            let detail = || StoreError::WrongType { key: self.keys.tick(&by.name), detail: codec::text(&last) };
            Ok(Known { last: codec::text(&last).parse().ok(), since: since.map_err(|_| detail())? })
        };
        Ok(read(tasks, answers, known))
    }

    async fn periodics(&self) -> Result<Vec<(Arc<str>, Declared)>, StoreError> {
        let key = self.keys.ticks();
        let connection = self.connections.of(&key).await?;
        let names = connection.client().zrange::<Vec<String>, _, _, _>(key, 0, -1, None, false, None, false).await;
        let mut names = names.map_err(self.store_error(&connection))?;
        names.sort_unstable();
        let reads = names.into_iter().map(async |name| {
            let key = self.keys.tick(&name);
            let connection = self.connections.of(&key).await?;
            let fields = connection.client().hgetall::<HashMap<String, String>, _>(key).await;
            let fields = fields.map_err(self.store_error(&connection))?;
            Ok(declared(&fields).map(|declared| (name.into(), declared)))
        });
        let all = try_join_all(reads).await?;
        Ok(all.into_iter().flatten().collect())
    }
}

impl RedisStore {
    /// Puts names where a list can find them. That is a call of its own, because in a cluster the set is in another slot.
    async fn list_names(&self, tasks: &[Declaration]) -> Result<(), StoreError> {
        let Some(now) = tasks.iter().map(|by| by.now).max() else { return Ok(()) };
        let mut args = Args::default();
        args.text(&self.keys.ticks()).number(now);
        for by in tasks {
            args.number(by.now + by.ttl_ms(ttl::WAITING)).text(&by.name);
        }
        self.send(&LIST_NAMES, &[Call { args, keys: 1 }]).await.map(drop)
    }
}

/// A hash; `None` if it has lapsed or is written in a way that this version can't read.
fn declared(fields: &HashMap<String, String>) -> Option<Declared> {
    let text = |name: &str| fields.get(name).map(|text| Arc::from(&**text));
    let ms = |name: &str| fields.get(name)?.parse().ok();
    Some(Declared {
        schedule: text("schedule")?,
        zone: text("time-zone"),
        missed: fields.get("missed")?.parse().ok()?,
        task: text("task")?,
        queue: text("queue")?,
        next: ms("next"),
        last: ms("last"),
        since: ms("since")?,
        declared_at: ms("declared-at")?,
    })
}
