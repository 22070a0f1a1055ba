//! Limits in memory.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    core::limits::{self, Admission, LATE_US, PermitTerms, Permits, RateState},
    store::{Answers, Limits, PermitKey, PermitRequest, RateRequest, StoreError},
};

#[async_trait]
impl Limits for MemoryStore {
    async fn admit(&self, requests: &[RateRequest]) -> Answers<Admission> {
        let (mut inner, now_us) = self.lock();
        let admit = |RateRequest { task, limit, rate, arrival }: &RateRequest| {
            inner.limits.sweep(now_us);
            Ok(limits::admit(inner.limits.rates.entry(Arc::clone(limit)).or_default(), rate, *arrival, task, now_us))
        };
        Ok(requests.iter().map(admit).collect())
    }

    async fn acquire_permit(&self, terms: PermitTerms, requests: &[PermitRequest]) -> Answers<Option<u64>> {
        let (mut inner, now_us) = self.lock();
        let acquire_permit = |PermitRequest { key, max_running, holds }: &PermitRequest| {
            inner.limits.sweep(now_us);
            let permits = inner.limits.permits.entry(Arc::clone(&key.limit)).or_default();
            Ok(limits::acquire_permit(permits, &key.run, *max_running, *holds, terms, now_us / 1_000))
        };
        Ok(requests.iter().map(acquire_permit).collect())
    }

    async fn release_permit(&self, permits: &[PermitKey]) -> Result<(), StoreError> {
        let (mut inner, _) = self.lock();
        for PermitKey { limit, run } in permits {
            if let Some(permits) = inner.limits.permits.get_mut(limit) {
                permits.runs.remove(run);
            }
        }
        Ok(())
    }
}

/// How far each limit is used. What has no effect any more is forgotten.
#[derive(Debug, Default)]
pub(super) struct Usage {
    rates: HashMap<Arc<str>, RateState>,
    permits: HashMap<Arc<str>, Permits>,
    /// Number of limits above which they are looked through.
    sweep_at: usize,
}

impl Usage {
    /// A limit may be one per argument, so there may be many.
    fn sweep(&mut self, now_us: u64) {
        const MIN_SWEEP: usize = 1_024;
        if self.rates.len() + self.permits.len() > self.sweep_at.max(MIN_SWEEP) {
            let waits = |rate: &RateState| rate.line.lasts_until(now_us.saturating_sub(LATE_US));
            self.rates.retain(|_, rate| rate.started_us > now_us || waits(rate));
            let is_used = |until_ms: u64| until_ms > now_us / 1_000;
            self.permits.retain(|_, permits| {
                is_used(permits.next_retry_ms) || permits.runs.values().any(|&until| is_used(until))
            });
            self.sweep_at = 2 * (self.rates.len() + self.permits.len());
        }
    }
}
