//! YADTQ

mod admin;
mod broker;
mod call;
mod client;
mod clock;
mod config;
mod context;
mod core;
mod error;
mod handle;
mod store;
mod task;
mod wire;
mod worker;

pub use yadtq_macros::task;

pub use crate::{
    admin::{Admin, PingReport, ServerReport, TaskInfo},
    broker::{BrokerError, QueueDepth},
    call::Call,
    client::Client,
    config::ClientBuilder,
    context::{Context, MissingState},
    core::{
        lifecycle::{Status, UnknownStatus},
        names::{NameError, Namespace, Queue, TaskId},
    },
    error::Error,
    handle::TaskHandle,
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
        Writer, delay, finish,
    };
}
