//! Limits in Redis: a hash for each rate, a sorted set for each limit of tasks at once.

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Script, read},
    codec,
};
use crate::{
    core::limits::{Admission, Arrival, MAX_PARK_US, PERMIT_RETRY_SPACING_MS, RATE_SLACK_US},
    store::{Answers, Limits, PermitKey, PermitRequest, RateRequest, StoreError},
};

static ADMIT: Script = Script::new(&[include_str!("lua/admit.lua")]);
static ACQUIRE_PERMIT: Script = Script::new(&[include_str!("lua/acquire_permit.lua")]);
static RELEASE_PERMIT: Script = Script::new(&[include_str!("lua/release_permit.lua")]);

#[async_trait]
impl Limits for RedisStore {
    async fn admit(&self, requests: &[RateRequest]) -> Answers<Admission> {
        let key = |args: &mut Args, request: &RateRequest| {
            args.text(&self.keys.rate(&request.limit));
        };
        let shared = |args: &mut Args| {
            args.number(RATE_SLACK_US).number(MAX_PARK_US);
        };
        let each = |args: &mut Args, RateRequest { rate, arrival, .. }: &RateRequest| {
            let arrival = match arrival {
                Arrival::New => "new",
                Arrival::Reserved => "holds",
                Arrival::Waiting => "waits",
            };
            args.number(rate.interval_us()).number(rate.ahead_us()).text(arrival);
        };
        let answers = self.batch_of(&ADMIT, requests, key, shared, each).await?;
        let admission = |(request, [answer]): (&RateRequest, [Value; 1])| match answer.as_i64() {
            Some(-1) => Ok(Admission::Now),
            Some(us) => Ok(Admission::In(us.unsigned_abs())),
            None => Err(StoreError::WrongType { key: self.keys.rate(&request.limit), detail: codec::text(&answer) }),
        };
        Ok(read(requests, answers, admission))
    }

    async fn acquire_permit(&self, lease_ms: u64, requests: &[PermitRequest]) -> Answers<Option<u64>> {
        let key = |args: &mut Args, request: &PermitRequest| {
            args.text(&self.keys.permits(&request.key.limit));
        };
        let shared = |args: &mut Args| {
            args.number(lease_ms).number(PERMIT_RETRY_SPACING_MS);
        };
        let each = |args: &mut Args, request: &PermitRequest| {
            args.text(&request.key.run).number(request.max_running).number(u8::from(request.holds));
        };
        let answers = self.batch_of(&ACQUIRE_PERMIT, requests, key, shared, each).await?;
        let wait = |(request, [answer]): (&PermitRequest, [Value; 1])| match answer.as_i64() {
            Some(-1) => Ok(None),
            Some(ms) => Ok(Some(ms.unsigned_abs())),
            None => {
                Err(StoreError::WrongType { key: self.keys.permits(&request.key.limit), detail: codec::text(&answer) })
            }
        };
        Ok(read(requests, answers, wait))
    }

    async fn release_permit(&self, permits: &[PermitKey]) -> Result<(), StoreError> {
        let key = |args: &mut Args, permit: &PermitKey| {
            args.text(&self.keys.permits(&permit.limit));
        };
        let each = |args: &mut Args, permit: &PermitKey| {
            args.text(&permit.run);
        };
        let answers = self.batch_of::<_, 1>(&RELEASE_PERMIT, permits, key, |_| (), each).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}
