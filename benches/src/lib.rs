//! Benchmarks of YADTQ. `cargo bench -p yadtq-benches` runs them against the servers that `YADTQ_KAFKA` and `YADTQ_REDIS`
//! name. They compare within one run, because machines differ and drift.
//!
//! To compare two versions, check both out, each with a target directory of its own, and run the same command in them
//! alternately, on the same servers:
//!
//! ```sh
//! cargo bench -p yadtq-benches --bench drain -- 200000 1                        # round 1: raw R tasks/s yadtq Y tasks/s ratio Q
//! cargo bench -p yadtq-benches --bench latency -- --output-format bencher       # test round trip/embedded ... bench: N ns/iter
//! ```
//!
//! Both print one line for each measurement. Every run has a namespace of its own, so earlier runs do not affect it.

use std::fs;

/// A size in kB of this process's memory, by its name in `/proc/self/status`: `VmRSS:` is what is resident, `VmHWM:` its peak.
///
/// # Panics
/// This is not Linux.
#[must_use]
pub fn memory_kb(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a size");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}
