//! Limits in Redis: a hash for each rate, a sorted set for each limit of tasks at once.

use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Script},
    codec,
};
use crate::{
    core::limits::{Admission, LONGEST_US, LOOK_MS, SLACK_US, Turn},
    store::{Answers, Entry, Occupation, Place, StoreError},
};

static ADMIT: Script = Script::new(include_str!("lua/admit.lua"));
static OCCUPY: Script = Script::new(include_str!("lua/occupy.lua"));
static VACATE: Script = Script::new(include_str!("lua/vacate.lua"));

impl RedisStore {
    pub(super) async fn run_admit(&self, entries: &[Entry]) -> Answers<Admission> {
        let key = |args: &mut Args, entry: &Entry| {
            args.text(&self.keys.rate(&entry.limit));
        };
        let shared = |args: &mut Args| {
            args.number(SLACK_US).number(LONGEST_US);
        };
        let each = |args: &mut Args, Entry { rate, turn, .. }: &Entry| {
            let turn = match turn {
                Turn::New => "new",
                Turn::Holds => "holds",
                Turn::Waits => "waits",
            };
            args.number(rate.interval_us()).number(rate.ahead_us()).text(turn);
        };
        let answers = self.batch_of(&ADMIT, entries, key, shared, each).await?;
        let told = |(entry, answer): (&Entry, &Value)| match answer.as_i64() {
            Some(-1) => Ok(Admission::Now),
            Some(wait) => Ok(Admission::In(wait.unsigned_abs())),
            None => Err(StoreError::WrongType { key: self.keys.rate(&entry.limit), detail: codec::text(answer) }),
        };
        Ok(entries.iter().zip(&answers).map(told).collect())
    }

    pub(super) async fn run_occupy(&self, lease_ms: u64, runs: &[Occupation]) -> Answers<Option<u64>> {
        let key = |args: &mut Args, run: &Occupation| {
            args.text(&self.keys.places(&run.place.limit));
        };
        let shared = |args: &mut Args| {
            args.number(lease_ms).number(LOOK_MS);
        };
        let each = |args: &mut Args, run: &Occupation| {
            args.text(&run.place.run).number(run.most).number(u8::from(run.holds));
        };
        let answers = self.batch_of(&OCCUPY, runs, key, shared, each).await?;
        let told = |(run, answer): (&Occupation, &Value)| match answer.as_i64() {
            Some(-1) => Ok(None),
            Some(wait) => Ok(Some(wait.unsigned_abs())),
            None => Err(StoreError::WrongType { key: self.keys.places(&run.place.limit), detail: codec::text(answer) }),
        };
        Ok(runs.iter().zip(&answers).map(told).collect())
    }

    pub(super) async fn run_vacate(&self, places: &[Place]) -> Result<(), StoreError> {
        let key = |args: &mut Args, place: &Place| {
            args.text(&self.keys.places(&place.limit));
        };
        let each = |args: &mut Args, place: &Place| {
            args.text(&place.run);
        };
        self.batch_of(&VACATE, places, key, |_| (), each).await.map(drop)
    }
}
