//! No warning that a plain function would not give, and documentation for everything public.
#![deny(warnings, missing_docs, missing_debug_implementations, unused, unreachable_pub)]
#![deny(rust_2018_idioms, let_underscore_drop, single_use_lifetimes, unused_qualifications)]

/// Only `run` is used.
#[yadtq::task]
async fn only_run(a: i64) -> i64 {
    a
}

/// Only sent.
#[yadtq::task]
fn only_called(a: i64) -> i64 {
    a
}

#[yadtq::task]
pub fn undocumented(a: i64) -> i64 {
    a
}

fn main() {
    drop(only_run.run(1));
    drop(only_called.call(1));
}
