//! Limits in Redis: a hash and a line for each rate, a sorted set for each limit of tasks at once.

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Script, read},
    codec,
};
use crate::{
    core::limits::{
        Admission, Arrival, LATE_BATCH, LATE_US, PERMIT_CLOCK_TOLERANCE_MS, PERMIT_RETRY_SPACING_MS, PermitTerms,
        RATE_SLACK_US, RECHECK_SPACING_US, RECHECK_US,
    },
    store::{Answers, Limits, PermitKey, PermitRequest, RateRequest, StoreError, ttl},
};

static ADMIT: Script = Script::new(&[include_str!("lua/admit.lua")]);
static ACQUIRE_PERMIT: Script = Script::new(&[include_str!("lua/acquire_permit.lua")]);
static RELEASE_PERMIT: Script = Script::new(&[include_str!("lua/release_permit.lua")]);

#[async_trait]
impl Limits for RedisStore {
    async fn admit(&self, requests: &[RateRequest]) -> Answers<Admission> {
        let keys = |args: &mut Args, request: &RateRequest| {
            let rate = self.keys.rate(&request.limit);
            args.text(&rate).text(&format!("{rate}:line")).text(&format!("{rate}:back"));
        };
        let shared = |args: &mut Args| {
            args.number(RATE_SLACK_US).number(RECHECK_US).number(RECHECK_SPACING_US).number(LATE_US).number(LATE_BATCH);
        };
        let each = |args: &mut Args, RateRequest { task, rate, arrival, .. }: &RateRequest| {
            let arrival = match arrival {
                Arrival::New => "new",
                Arrival::Turn => "turn",
                Arrival::Waiting => "waits",
            };
            args.text(task.as_str()).number(rate.interval_us()).number(rate.ahead_us()).text(arrival);
        };
        let answers = self.batch_of(&ADMIT, requests, keys, shared, each).await?;
        let admission = |(request, [code, us]): (&RateRequest, [Value; 2])| match (code.as_i64(), us.as_u64()) {
            (Some(0), _) => Ok(Admission::Now),
            (Some(1), Some(us)) => Ok(Admission::In(us)),
            (Some(2), Some(us)) => Ok(Admission::AskAgain(us)),
            _ => Err(StoreError::WrongType { key: self.keys.rate(&request.limit), detail: codec::text(&us) }),
        };
        Ok(read(requests, answers, admission))
    }

    async fn acquire_permit(&self, terms: PermitTerms, requests: &[PermitRequest]) -> Answers<Option<u64>> {
        let key = |args: &mut Args, request: &PermitRequest| {
            args.text(&self.keys.permits(&request.key.limit));
        };
        let shared = |args: &mut Args| {
            args.number(terms.lease_ms).number(PERMIT_RETRY_SPACING_MS).number(u8::from(terms.take_over));
            args.number(PERMIT_CLOCK_TOLERANCE_MS).number(ttl::PERMITS);
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
