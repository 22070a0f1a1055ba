//! What the tests of guarantees share: real servers, real processes, and a way to wait for what they say.

pub mod process;
pub mod servers;
pub mod soak;
pub mod tasks;

use std::time::{Duration, Instant};

/// How long a test waits for something that has to happen. Far above what it takes, so that a slow machine does
/// not fail a test of a guarantee that has no deadline.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace that no other test uses.
#[must_use]
pub fn namespace(test: &str) -> String {
    let id = yadtq::TaskId::new().to_string();
    format!("t-{test}-{}", &id[id.len() - 8..])
}

/// The time of the wall clock, in ms since the Unix epoch.
///
/// # Panics
/// It is before 1970.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "tests on real servers go by real time")]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the end of time")
}

/// Asks again until there is an answer.
///
/// # Panics
/// There is none within [`PATIENCE`].
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
