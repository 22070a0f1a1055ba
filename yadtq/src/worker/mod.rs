//! Runs tasks.
//!
//! ```text
//!            ┌───────── event_loop: gives events to the parts, applies their effects, makes the calls ─────────┐
//!            │                                                                                                 │
//!  Kafka ─► intake ──────► start ───────────► runs ─────────────► finish ─► Redis, then Kafka ─► offset committed
//!            polls,         claims,            leases, slots,      outcomes, completer,
//!            sources,       controls,          ready queue,        next records,
//!            lanes          limits             executor            dead letters
//!            ▲ asks again    │ held             │ stale, given back  │
//!            └───────────────┴──────────────────┴────────────────────┘     background: scheduler, periodic, heartbeat
//! ```
//! **Who owns what.** Intake: which partitions are ours, and every record that is not completed. Start: what is being claimed,
//! and the controls and limits that hold tasks back. Runs: every task whose lease we hold. Finish: every end that is not recorded yet.
//! Each part is a value: it takes events and returns [effects](effect), and can be tested without Tokio and servers. The
//! [event loop](event_loop) alone knows them all, and alone touches the network.
//!
//! All of it but the tasks themselves runs on a thread of its own, with a runtime of its own: there are no locks, and a
//! task that blocks the application's runtime cannot make a lease lapse. What the parts remember can all be read
//! again from the log and the store, so nothing is lost with a worker that dies.

mod background;
mod builder;
mod calls;
mod effect;
mod event_loop;
mod finish;
mod intake;
mod job;
mod options;
mod runs;
mod start;
#[cfg(test)]
mod tests;
mod timers;
#[allow(clippy::module_inception)]
mod worker;

pub use self::{
    builder::WorkerBuilder,
    worker::{RunningWorker, Worker},
};
