//! Runs calls of librdkafka that can block, each on its own thread. Tokio's blocking pool is not used, because a
//! runtime that is dropped waits for its pool, and while Kafka is unreachable such a call lasts as long as its timeout.

use std::{io, ops::Deref, thread};

use tokio::sync::oneshot;

/// Runs a call that can block. `None` if the call panicked, or if no thread could be started.
pub(super) async fn run_blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    spawn_thread(move || drop(sender.send(call()))).ok()?;
    answer.await.ok()
}

/// Starts a thread.
pub(super) fn spawn_thread(act: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("yadtq-kafka".to_owned()).spawn(act)
}

/// A client of librdkafka that is dropped on its own thread: the drop flushes, leaves the group and joins threads, so
/// it can block.
pub(super) struct DropOnThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> DropOnThread<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for DropOnThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only `drop` takes the client")
    }
}

impl<T: Send + 'static> Drop for DropOnThread<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            // If no thread can be started, the closure is dropped here, and the client with it.
            let _ = spawn_thread(move || drop(client));
        }
    }
}
