//! Logs on stderr, if asked for.

use std::io;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;

/// Starts logging as loud as there are `-v`. Without one, errors say all there is to say.
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
