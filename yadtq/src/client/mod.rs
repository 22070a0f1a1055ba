//! Sends tasks and finds them again.
//!
//! ```text
//!  Call ──► prepare ──► reserve ──► send ──► TaskHandle ◄── waiting ◄── replies
//!           checks      unique      Kafka,                  one entry   results and progress
//!           the call    keys        Redis                   per task    from Redis
//! ```
//! Kafka alone decides whether a task was sent. The client also records the task in Redis, so that its status is known
//! before a worker claims it. If a message with a result is lost, a periodic lookup finds the result.

mod background;
mod call;
mod client;
mod handle;
pub(crate) mod inherited;
mod ordering;
mod prepare;
mod progress;
mod replies;
mod reserve;
mod revoke;
mod send;
mod unique_key;
mod waiting;
mod watching;

use std::time::Duration;

pub use self::{
    call::Call, client::Client, handle::TaskHandle, progress::ProgressStream, revoke::Revocation, send::delay,
};
pub(crate) use self::{call::CallSpec, prepare::check_name, revoke::revoke};

/// Longest time for which a unique key or a result can be kept.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);
