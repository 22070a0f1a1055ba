//! Calls of librdkafka that can block get a thread of their own. Tokio's blocking pool would do, but a runtime that is
//! dropped waits for it, and with Kafka away such a call takes as long as its timeout.

use std::{io, ops::Deref, thread};

use tokio::sync::oneshot;

/// Runs something that blocks. `None` if it panicked or no thread could be had.
pub(super) async fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    spawn(move || drop(answer.send(act()))).ok()?;
    answered.await.ok()
}

/// Starts a thread.
pub(super) fn spawn(act: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("yadtq-kafka".to_owned()).spawn(act)
}

/// A client of librdkafka, which is dropped on a thread of its own: it flushes, leaves its group, joins threads.
pub(super) struct DropApart<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> DropApart<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }

    /// Drops the client and waits for it.
    pub(super) async fn close(mut self) {
        let client = self.0.take();
        apart(move || drop(client)).await;
    }
}

impl<T: Send + 'static> Deref for DropApart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only `close` and `drop` take it, and nothing comes after them")
    }
}

impl<T: Send + 'static> Drop for DropApart<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            // Without a thread the closure is dropped here, and the client with it.
            let _ = spawn(move || drop(client));
        }
    }
}
