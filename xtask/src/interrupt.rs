//! Turns SIGINT, SIGTERM and SIGHUP into an error at the next place that waits.
//!
//! A test run must stop its servers however it ends, so a signal must not simply
//! end the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

// Signals belong to the process, hence a static.
static RECEIVED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The user, or the program that runs xtask, asked it to stop.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

pub(crate) fn listen() -> Result<()> {
    let received = RECEIVED.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(received)).context("can't listen for signals")?;
    }
    Ok(())
}

/// Fails once for each interruption. So the signal that causes the clean-up does
/// not interrupt it, but another signal does.
pub(crate) fn check() -> Result<(), Interrupted> {
    match RECEIVED.get() {
        Some(received) if received.swap(false, Ordering::Relaxed) => Err(Interrupted),
        _ => Ok(()),
    }
}
