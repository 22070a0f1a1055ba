//! Runs tasks.
//!
//! ```text
//!  poll ─► intake ─► claims ─► (limits) ─► execute ─► settle ─► offset committed
//!           │          │ held               │ stale
//!           │          └─► asked again ◄────┘
//!           └─► burial (dead letters) ─────────────► offset committed
//! ```
//! All of it but the tasks themselves happens on one thread of its own, with a runtime of its own, in one
//! loop ([`control`]) that owns all state: there are no locks, and a task that blocks the application's
//! runtime cannot make a lease lapse. Everything that crosses a network is a future in the loop's set and
//! comes back as a [`step::Step`]. What the parts remember is only what the log and the store can tell again:
//! a worker that dies takes nothing with it.

mod builder;
mod burial;
mod claims;
mod control;
mod drain;
mod execute;
mod granted;
mod heartbeat;
mod in_place;
mod intake;
mod job;
mod lease;
mod levels;
mod limits;
mod lines;
mod orders;
mod periodic;
mod progress;
mod retry;
mod revoke;
mod run;
mod scheduler;
mod settle;
mod source;
mod step;
#[cfg(test)]
mod tests;
mod unique;

pub use self::{
    builder::WorkerBuilder,
    run::{RunningWorker, Worker},
};
