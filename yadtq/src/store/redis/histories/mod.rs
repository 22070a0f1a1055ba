//! Random histories of a fleet, played on the Redis scripts and on the pure functions: answers must be the same, to the ms.
//!
//! Both need the same time, and the same subscriptions, so the scripts run on a [`Stage`].
#![allow(clippy::unwrap_used)]

mod ownership;
mod registry;

use super::stage::Stage;
