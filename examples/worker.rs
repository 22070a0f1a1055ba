//! A service that runs tasks until SIGTERM or Ctrl-C.
//!
//!     cargo run --example worker
//!
//! YADTQ_KAFKA and YADTQ_REDIS name the servers; the default is localhost. RUST_LOG=yadtq=debug logs more.

use tracing_subscriber::EnvFilter;
use yadtq::Worker;
use yadtq_examples::{add, greet};

#[tokio::main]
async fn main() -> Result<(), yadtq::Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    Worker::builder().register(add).register(greet).run().await
}
