//! Ownership of partitions: which worker reads which.

use async_trait::async_trait;

use super::Answers;
use crate::core::ownership::{OwnRequest, Owned, Owner};

/// The leases of partitions.
#[async_trait]
pub(crate) trait Ownership {
    /// Renews the caller's lease, and answers with all partitions that it owns: [`own`](crate::core::ownership::own) on each topic. Sends
    /// [`Notice::OwnAgain`](super::Notice::OwnAgain) to the workers that should call now.
    async fn own(&self, by: &Owner, requests: &[OwnRequest]) -> Answers<Owned>;
}
