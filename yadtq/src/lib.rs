//! Distributed tasks on Kafka and Redis, embeddable in any service: at-least-once execution, and one recorded
//! outcome for every task.
//!
//! ```
//! use yadtq::{Client, Worker};
//!
//! #[yadtq::task]
//! async fn add(a: i64, b: i64) -> i64 {
//!     a + b
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> { tokio::runtime::Runtime::new()?.block_on(async {
//! let client = Client::embedded(); // Client::from_env().await? for Kafka and Redis
//! client.install()?;
//! let worker = Worker::builder().register(add).start().await?; // .run().await? in a service's main
//!
//! let handle = add.delay(1, 2).await?; // acknowledged
//! assert_eq!(handle.await?, 3); // run, recorded, told
//!
//! worker.stop().await?;
//! # Ok(()) }) }
//! ```
//!
//! - [`task`]: makes a task of a function.
//! - [`Client`] sends tasks, [`TaskHandle`] is one that was sent, [`Worker`] runs them.
//! - [`guide`]: [concepts](guide::concepts), [what is guaranteed](guide::delivery),
//!   [delays and retries](guide::scheduling), [periodic tasks](guide::periodic), [limits](guide::limits),
//!   [ordering keys](guide::ordering), [dead letters](guide::dead_letters), [orders to all workers](guide::control),
//!   [wire format](guide::wire_format),
//!   [Redis layout](guide::redis_layout), [log events](guide::logging), [operations](guide::operations).

mod admin;
mod broker;
mod call;
mod client;
mod clock;
mod config;
mod context;
mod core;
mod error;
pub mod guide;
mod handle;
mod periodic;
mod report;
mod scheduled;
mod store;
mod task;
mod unique;
mod wire;
mod worker;

pub use yadtq_macros::task;

pub use crate::{
    admin::{
        Admin, PeriodicInfo, PingReport, ServerReport, TaskInfo,
        dead_letters::{DeadLetterPage, DeadLetterWalk, DeadLetters},
        letter::{BadPlace, DeadLetter, Place},
        orders::{Controls, DisabledTask, PausedQueue, PurgedQueue},
        replay::{NotReplayed, ReplayReport, Replayed},
    },
    broker::{BrokerError, QueueDepth},
    call::Call,
    client::{Client, ProgressStream, Revocation},
    config::ClientBuilder,
    context::{Context, MissingState},
    core::{
        lifecycle::{Status, UnknownStatus},
        limits::{BadRate, Rate},
        names::{NameError, Namespace, Queue, TaskId},
        orders::Disabled,
        priority::{Priority, UnknownPriority},
        retry::Retry,
        ticks::Missed,
    },
    error::Error,
    handle::TaskHandle,
    periodic::Periodic,
    scheduled::{Scheduled, ScheduledTask},
    store::{StoreError, WorkerInfo},
    task::{Definition, IntoTaskError, Task, TaskError},
    wire::failure::{ErrorKind, Failure},
    worker::{RunningWorker, Worker, WorkerBuilder},
};

/// What the code that `#[yadtq::task]` writes needs. Not for others: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use serde;

    pub use crate::task::{
        ArgsError, Body, Finished, Injected, NotResult, Probe, Reader, Ret, Returned, RunBlocking, RunFuture, Split,
        Writer, delay, finish, finish_if,
    };
}
