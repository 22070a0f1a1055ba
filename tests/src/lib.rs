//! What the guarantee tests share: real servers, real processes, and ways to wait for their events.

pub mod brokers;
pub mod process;
pub mod servers;
pub mod soak;
pub mod tasks;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Longest time that a test waits for something that must happen. It is far more than necessary, so a slow machine does
/// not fail a test of a guarantee that has no deadline.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

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
    ms(std::time::SystemTime::now())
}

/// A time as a record has it, in ms since the Unix epoch.
///
/// # Panics
/// It is before 1970.
#[must_use]
pub fn ms(at: std::time::SystemTime) -> u64 {
    let since = at.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the end of time")
}

/// Calls `ask` again and again until it returns a value.
///
/// # Panics
/// It returns none within [`TEST_TIMEOUT`].
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < TEST_TIMEOUT, "{what}: not within {TEST_TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Holds a measured value to the one that is promised for a machine that does nothing else, if
/// `YADTQ_TEST_BOUNDS=promised`. A machine that others share may stand still for longer than that, so by default it is
/// held to one that only a missing mechanism exceeds.
///
/// # Panics
/// The value is larger.
#[track_caller]
pub fn hold<T: PartialOrd + Debug>(what: &str, measured: T, promised: T, otherwise: T) {
    let is_strict = std::env::var("YADTQ_TEST_BOUNDS").is_ok_and(|bounds| bounds == "promised");
    let most = if is_strict { promised } else { otherwise };
    assert!(measured <= most, "{what}: {measured:?}, at most {most:?}");
}
