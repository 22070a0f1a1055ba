//! The thread that runs the background work of all clients of this process.
//!
//! A client may be used from several runtimes, one after the other or at the same time, and may outlive the runtime on which
//! it was made (every `#[tokio::test]` has its own). So its connections and its reply loop belong to none of those runtimes.

use std::{sync::OnceLock, thread};

use tokio::runtime::{Builder, Handle};

use crate::error::Error;

/// The runtime of all clients. It starts with the first client, and never stops.
pub(super) fn runtime() -> Result<&'static Handle, Error> {
    static RUNTIME: OnceLock<Result<Handle, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("yadtq-client".to_owned()).spawn(run).map_err(|e| e.to_string())?;
        Ok(handle)
    });
    started.as_ref().map_err(|e| Error::config("client", format!("the client's thread could not be started: {e}")))
}
