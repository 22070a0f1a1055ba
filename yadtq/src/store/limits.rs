//! Limits: how often tasks may start, and how many of them may run at once.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answers, StoreError};
use crate::core::{
    limits::{Admission, Arrival, PermitTerms, Rate},
    names::TaskId,
};

/// A task that wants to start under a rate.
#[derive(Clone, Debug)]
pub(crate) struct RateRequest {
    /// The task.
    pub task: TaskId,
    /// Names the limit.
    pub limit: Arc<str>,
    /// The rate.
    pub rate: Rate,
    /// How the task comes to it.
    pub arrival: Arrival,
}

/// Names the permit of one run under a limit of tasks that run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PermitKey {
    /// Names the limit.
    pub limit: Arc<str>,
    /// The run: its task's id and its token.
    pub run: Arc<str>,
}

/// A run that wants a permit, or keeps the one that it has.
#[derive(Clone, Debug)]
pub(crate) struct PermitRequest {
    /// The permit.
    pub key: PermitKey,
    /// The number of permits that this limit has.
    pub max_running: u32,
    /// Whether the run has its permit already: then it keeps it, even if others have all of them.
    pub holds: bool,
}

/// The use of limits.
#[async_trait]
pub(crate) trait Limits {
    /// Asks whether tasks may start: [`limits::admit`](crate::core::limits::admit) on each, in order, by the store's
    /// clock. Sent twice, it may cost a start: never one too many.
    async fn admit(&self, requests: &[RateRequest]) -> Answers<Admission>;

    /// Takes or keeps permits on these terms: [`limits::acquire_permit`](crate::core::limits::acquire_permit) on
    /// each, in order. `Some`: no permit is free; ask again after that many ms.
    async fn acquire_permit(&self, terms: PermitTerms, requests: &[PermitRequest]) -> Answers<Option<u64>>;

    /// Returns permits, so that other runs may take them. What is not held stays so.
    async fn release_permit(&self, permits: &[PermitKey]) -> Result<(), StoreError>;
}
