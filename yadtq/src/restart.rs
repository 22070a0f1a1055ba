//! Keeps loops alive: a panic in one is an error event, and the loop starts again.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::sleep;
use tracing::error;

/// The wait before a loop that has panicked starts again.
pub(crate) const RESTART_DELAY: Duration = Duration::from_millis(500);

/// Runs a loop until it returns. `name` is its name in the log.
pub(crate) async fn run<F: Future<Output = ()>>(name: &'static str, mut start: impl FnMut() -> F) {
    while !runs(name, async { start().await }).await {
        sleep(RESTART_DELAY).await;
    }
}

/// Runs a loop once. `false`: it has panicked.
pub(crate) async fn runs(name: &'static str, work: impl Future<Output = ()>) -> bool {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| report(name, &*panic)).is_ok()
}

/// Runs a blocking loop until it returns; calls `restarts` before it starts again.
pub(crate) fn run_blocking(name: &'static str, mut work: impl FnMut(), mut restarts: impl FnMut()) {
    while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut work)) {
        report(name, &*panic);
        thread::sleep(RESTART_DELAY);
        restarts();
    }
}

fn report(name: &'static str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let reason = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    error!(event = "loop_panicked", part = name, error = reason, "a loop has panicked; it starts again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_starts_again_until_it_returns() {
        let mut runs = 0;
        run("test", || {
            runs += 1;
            let is_good = runs == 3;
            async move { assert!(is_good, "as it is meant to") }
        })
        .await;
        assert_eq!(runs, 3);
    }

    #[test]
    fn a_thread_that_panics_starts_again() {
        let (mut runs, mut restarts) = (0, 0);
        let work = || {
            runs += 1;
            assert!(runs == 2, "as it is meant to");
        };
        run_blocking("test", work, || restarts += 1);
        assert_eq!((runs, restarts), (2, 1));
    }
}
