//! Unique keys: which task a key belongs to.

use async_trait::async_trait;

use super::Answers;
use crate::core::{
    names::TaskId,
    unique::{Reserved, UniqueKey},
};

/// A unique key, asked for on behalf of a task.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    /// The key.
    pub key: UniqueKey,
    /// The task.
    pub id: TaskId,
    /// How long the key is kept from the first submit on, in ms.
    pub ttl_ms: u64,
}

/// Who has which unique key.
#[async_trait]
pub(crate) trait UniqueKeys {
    /// Asks for unique keys: [`unique::reserve`](crate::core::unique::reserve) on each, in order.
    async fn reserve(&self, keys: &[Reservation]) -> Answers<Reserved>;

    /// Records that Kafka has the tasks of unique keys; `false`: the key is free by now, or another task's.
    async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool>;
}
