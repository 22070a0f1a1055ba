//! Unique keys in Redis: a string each.

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Script, read},
    codec,
};
use crate::{
    core::{
        names::TaskId,
        unique::{Reserved, Taken, UniqueKey},
    },
    store::{Answers, Reservation, StoreError, UniqueKeys},
};

static RESERVE: Script = Script::new(&[include_str!("lua/reserve.lua")]);
static CONFIRM: Script = Script::new(&[include_str!("lua/confirm.lua")]);

#[async_trait]
impl UniqueKeys for RedisStore {
    async fn reserve(&self, keys: &[Reservation]) -> Answers<Reserved> {
        let key = |args: &mut Args, reservation: &Reservation| {
            args.text(&self.keys.unique(&reservation.key));
        };
        let each = |args: &mut Args, reservation: &Reservation| {
            args.text(reservation.id.as_str()).number(reservation.ttl_ms);
        };
        let answers = self.batch_of(&RESERVE, keys, key, |_| (), each).await?;
        let reserved = |(asked, [code, text]): (&Reservation, [Value; 2])| {
            let text = codec::text(&text);
            let queued = match code.as_i64() {
                Some(1) => return Ok(Reserved::New),
                Some(2) => false,
                Some(3) => true,
                _ => return Err(self.no_key(&asked.key, text)),
            };
            match text.parse() {
                Ok(id) => Ok(Reserved::Taken(Taken { id, queued })),
                Err(_) => Err(self.no_key(&asked.key, text)),
            }
        };
        Ok(read(keys, answers, reserved))
    }

    async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool> {
        let key = |args: &mut Args, (key, _): &(UniqueKey, TaskId)| {
            args.text(&self.keys.unique(key));
        };
        let each = |args: &mut Args, (_, id): &(UniqueKey, TaskId)| {
            args.text(id.as_str());
        };
        let answers = self.batch_of(&CONFIRM, keys, key, |_| (), each).await?;
        let confirmed = |((key, _), [answer]): (&(UniqueKey, TaskId), [Value; 1])| {
            answer.as_i64().map(|code| code == 1).ok_or_else(|| self.no_key(key, codec::text(&answer)))
        };
        Ok(read(keys, answers, confirmed))
    }
}

impl RedisStore {
    fn no_key(&self, key: &UniqueKey, detail: String) -> StoreError {
        StoreError::WrongType { key: self.keys.unique(key), detail }
    }
}
