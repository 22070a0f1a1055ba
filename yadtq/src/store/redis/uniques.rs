//! Unique keys in Redis: a string each.

use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Script},
    codec,
};
use crate::{
    core::{
        names::TaskId,
        unique::{Reserved, Taken, UniqueKey},
    },
    store::{Answers, Reservation, StoreError},
};

static RESERVE: Script = Script::new(include_str!("lua/reserve.lua"));
static CONFIRM: Script = Script::new(include_str!("lua/confirm.lua"));

impl RedisStore {
    pub(super) async fn run_reserve(&self, keys: &[Reservation]) -> Answers<Reserved> {
        let key = |args: &mut Args, reservation: &Reservation| {
            args.text(&self.keys.unique(&reservation.key));
        };
        let each = |args: &mut Args, reservation: &Reservation| {
            args.text(reservation.id.as_str()).number(reservation.ttl_ms);
        };
        let answers = self.batch_of(&RESERVE, keys, key, |_| (), each).await?;
        let reserved = |(asked, answer): (&Reservation, &[Value])| {
            let text = codec::text(&answer[1]);
            let queued = match answer[0].as_i64() {
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
        Ok(keys.iter().zip(answers.chunks_exact(2)).map(reserved).collect())
    }

    pub(super) async fn run_confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool> {
        let key = |args: &mut Args, (key, _): &(UniqueKey, TaskId)| {
            args.text(&self.keys.unique(key));
        };
        let each = |args: &mut Args, (_, id): &(UniqueKey, TaskId)| {
            args.text(id.as_str());
        };
        let answers = self.batch_of(&CONFIRM, keys, key, |_| (), each).await?;
        let confirmed = |((key, _), answer): (&(UniqueKey, TaskId), &Value)| {
            answer.as_i64().map(|code| code == 1).ok_or_else(|| self.no_key(key, codec::text(answer)))
        };
        Ok(keys.iter().zip(&answers).map(confirmed).collect())
    }

    fn no_key(&self, key: &UniqueKey, detail: String) -> StoreError {
        StoreError::WrongType { key: self.keys.unique(key), detail }
    }
}
