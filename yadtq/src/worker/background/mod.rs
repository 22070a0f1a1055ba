//! What a worker does besides running tasks: fires delayed ones, sends periodic ones, sends heartbeats, watches the store's
//! memory, and notices that its machine was suspended.

pub(super) mod heartbeat;
pub(super) mod memory;
pub(super) mod periodic;
mod refused;
pub(super) mod scheduler;
pub(super) mod suspend;
