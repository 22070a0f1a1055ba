//! Periodic tasks: their schedules, and which of their ticks are known to be sent.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answers, StoreError};
use crate::core::ticks::{Declaration, Declared, Known};

/// What the workers declare to run by a schedule.
#[async_trait]
pub(crate) trait PeriodicTasks {
    /// Records periodic tasks that a worker declares: [`ticks::declare`](crate::core::ticks::declare) on each. They are
    /// forgotten [`ttl::WAITING`](super::ttl::WAITING) after their next tick, or after now if there is none.
    async fn declare(&self, tasks: &[Declaration]) -> Answers<Known>;

    /// Periodic tasks that are not forgotten, by name.
    async fn periodics(&self) -> Result<Vec<(Arc<str>, Declared)>, StoreError>;
}
