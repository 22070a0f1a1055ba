//! Logs on stderr, for `-v`.

use std::io;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;

/// Starts logging; more `-v` log more. Without `-v` there is no log, because errors say all that is necessary.
pub(crate) fn start(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "yadtq=info",
        2 => "yadtq=debug,librdkafka=debug",
        _ => "trace",
    };
    let colours = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(io::stderr);
    log.with_ansi(colours).init();
}
