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
//! assert_eq!(handle.await?, 3); // executed, recorded, returned
//!
//! worker.stop().await?;
//! # Ok(()) }) }
//! ```
//!
//! - [`task`] makes a task from a function.
//! - [`Client`] sends tasks, [`TaskHandle`] is one that was sent, [`Worker`] runs them.
//! - [`guide`]: [concepts](guide::concepts), [what is guaranteed](guide::delivery),
//!   [delays and retries](guide::scheduling), [periodic tasks](guide::periodic), [limits](guide::limits),
//!   [ordering keys](guide::ordering), [dead letters](guide::dead_letters), [controls](guide::control),
//!   [wire format](guide::wire_format),
//!   [Redis layout](guide::redis_layout), [log events](guide::logging), [operations](guide::operations),
//!   [deploying and upgrading](guide::deploying), [security](guide::security),
//!   [troubleshooting](guide::troubleshooting), [idempotency](guide::idempotency), [testing](guide::testing).

#![cfg_attr(
    not(all(feature = "kafka", feature = "redis")),
    allow(dead_code, unused_imports, reason = "some parts are only used between workers of several processes")
)]

pub mod admin;
mod broker;
mod client;
mod clock;
mod config;
mod core;
mod error;
pub mod guide;
mod periodic;
mod restart;
mod store;
mod task;
mod wire;
mod worker;

pub use yadtq_macros::task;

pub use crate::{
    broker::BrokerError,
    client::{Call, Client, ProgressStream, Revocation, TaskHandle},
    config::ClientBuilder,
    core::{
        lifecycle::{Status, UnknownStatus},
        limits::{BadRate, Rate},
        names::{NameError, Namespace, Queue, TaskId},
        priority::{Priority, UnknownPriority},
        retry::Retry,
        ticks::Missed,
    },
    error::Error,
    periodic::Periodic,
    store::StoreError,
    task::{Context, Definition, IntoTaskError, MissingState, State, Task, TaskError, Tasks},
    wire::failure::{ErrorKind, Failure},
    worker::{RunningWorker, Worker, WorkerBuilder},
};

/// A list of tasks of any length, for [`WorkerBuilder::register`]: a `Vec` of their definitions, which a module can return. See
/// [`Tasks`].
///
/// ```
/// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
/// # #[yadtq::task] async fn mul(a: i64, b: i64) -> i64 { a * b }
/// let worker = yadtq::Worker::builder().register(yadtq::tasks![add, mul]).build()?;
/// # Ok::<(), yadtq::Error>(())
/// ```
#[macro_export]
macro_rules! tasks {
    ($($task:expr),* $(,)?) => {
        ::std::vec![$($crate::Task::definition(&$task)),*]
    };
}

/// Items for the code that `#[yadtq::task]` generates. They are not public API and change without notice.
#[doc(hidden)]
pub mod __private {
    pub use serde;

    pub use crate::{
        client::delay,
        task::{
            ArgsError, Body, Finished, Injected, NotResult, Probe, Reader, Ret, Returned, RunBlocking, RunFuture,
            SharedState, Split, Writer, finish, finish_if,
        },
    };
}
