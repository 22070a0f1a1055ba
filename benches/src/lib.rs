//! Benchmarks of YADTQ; run them with `cargo bench -p yadtq-benches` against the servers that `YADTQ_KAFKA` and
//! `YADTQ_REDIS` name. They compare within one run, because machines differ and drift.
