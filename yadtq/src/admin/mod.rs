//! Inspects and controls tasks, workers, queues, servers and dead letters, for operators. It starts at
//! [`Client::admin`](crate::Client::admin).
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use yadtq::{Client, admin::Disabled};
//!
//! let admin = Client::embedded().admin();
//! admin.disable_task("send_email", Disabled::Wait).await?;
//! for disabled in admin.controls().await?.disabled {
//!     println!("{} does not run: {}", disabled.task, disabled.then);
//! }
//! # Ok::<(), yadtq::Error>(()) }).unwrap();
//! ```

mod controls;
mod dead_letters;
mod letter;
mod periodics;
mod ping;
mod purge;
mod queues;
mod replay;
mod scheduled;
mod settled;
mod task_info;
pub(crate) mod times;
mod walk;

use std::sync::Arc;

pub use self::{
    controls::{Controls, DisabledTask, PausedQueue, PurgedQueue},
    dead_letters::{DeadLetterPage, DeadLetterWalk, DeadLetters},
    letter::{BadPlace, DeadLetter, Place},
    periodics::PeriodicInfo,
    ping::{PingReport, ServerReport},
    queues::QueueInfo,
    replay::{NotReplayed, ReplayReport, Replayed},
    scheduled::{Scheduled, ScheduledTask},
    task_info::TaskInfo,
};
use crate::{broker::Broker, client::Client, config::Config, core::names::Namespace, error::Error, store::Store};
pub use crate::{
    core::controls::Disabled,
    store::{RunningIn, WorkerInfo},
};

/// Inspects and controls a namespace; see [`Client::admin`](crate::Client::admin).
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let client = yadtq::Client::embedded();
/// let report = client.admin().ping().await;
/// assert!(report.kafka.is_ok() && report.redis.is_ok());
/// # });
/// ```
#[derive(Debug)]
pub struct Admin {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    config: Config,
}

impl Client {
    /// The interface for operators: tasks, workers, queues, servers, dead letters, controls.
    #[must_use]
    pub fn admin(&self) -> Admin {
        let (broker, store) = (Arc::clone(self.broker()), Arc::clone(self.store()));
        Admin { broker, store, config: self.config().clone() }
    }
}

impl Admin {
    fn now_ms(&self) -> u64 {
        self.config.clock.now_ms()
    }

    fn namespace(&self) -> &Namespace {
        &self.config.namespace
    }

    /// The live workers: those whose heartbeat has not expired.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        Ok(self.store.workers().await?)
    }
}
