//! YADTQ

pub mod broker;
pub mod clock;
pub mod core;
pub mod store;
pub mod wire;

pub use crate::{
    core::{
        lifecycle::{Status, UnknownStatus},
        names::{NameError, Namespace, Queue, TaskId},
    },
    store::WorkerInfo,
    wire::failure::{ErrorKind, Failure},
};
