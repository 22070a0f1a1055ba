//! The thread on which the clients of this process live.
//!
//! A client may be used from several runtimes, one after the other or at once, and outlive the one it was made on
//! (every `#[tokio::test]` has its own). So its connections and its reply loop belong to none of them.

use std::{sync::OnceLock, thread};

use tokio::runtime::{Builder, Handle};

use crate::error::Error;

/// The clients' runtime, started with the first client and never stopped.
pub(super) fn runtime() -> Result<&'static Handle, Error> {
    static RUNTIME: OnceLock<Result<Handle, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("yadtq-client".to_owned()).spawn(run).map_err(|e| e.to_string())?;
        Ok(handle)
    });
    started.as_ref().map_err(|e| Error::config("client", format!("its thread could not be started: {e}")))
}
