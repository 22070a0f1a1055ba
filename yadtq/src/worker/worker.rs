//! A worker's life: built, started on a thread of its own, stopped.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
};
use tracing::{error, info};
use uuid::Uuid;

use super::{
    event_loop::{self, Exit, Stop},
    options::Plan,
};
use crate::{client::Client, core::names::WorkerId, error::Error};

/// Takes tasks from queues and runs them; see [`WorkerBuilder`](crate::WorkerBuilder).
///
/// ```no_run
/// #[yadtq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), yadtq::Error> {
///     yadtq::Worker::builder().register(add).run().await
/// }
/// ```
#[must_use = "a worker does nothing until it is started or run"]
pub struct Worker {
    client: Option<Client>,
    plan: Arc<Plan>,
}

/// A worker that works in the background until it is asked to stop.
///
/// If it is dropped, the worker is asked to stop, and nobody waits for it: at the end of `main` the process ends before the
/// worker has drained. Keep it, and call [`stop`](Self::stop).
#[derive(Debug)]
#[must_use = "a worker that is dropped stops"]
pub struct RunningWorker {
    stop: Stop,
    ended: oneshot::Receiver<Result<(), Error>>,
}

impl Worker {
    pub(super) fn new(client: Option<Client>, plan: Plan) -> Self {
        Self { client, plan: Arc::new(plan) }
    }

    /// Starts working in the background. Tasks run on the current runtime. Servers that cannot be reached yet
    /// are retried, and the log says so.
    ///
    /// # Errors
    /// [`Error::Config`]: the environment has a wrong setting, or a periodic call a wrong option. [`Error::TooLarge`]: a
    /// periodic call has arguments that the client does not send. [`Error::Worker`]: no thread could be started.
    pub async fn start(self) -> Result<RunningWorker, Error> {
        self.spawn(false).await
    }

    /// Works until the process gets SIGTERM or SIGINT (elsewhere than on Unix: Ctrl-C), then drains: it takes
    /// nothing new, waits for running tasks up to the drain timeout, and hands the rest back. A second signal
    /// ends the wait. Afterwards the process still ignores both signals: it is expected to end.
    ///
    /// # Errors
    /// As [`start`](Self::start). [`Error::Worker`]: the signals cannot be listened to. If the worker failed: why.
    pub async fn run(self) -> Result<(), Error> {
        let mut worker = self.spawn(true).await?;
        (&mut worker.ended).await.unwrap_or_else(|_| Err(died()))
    }

    async fn spawn(self, signals: bool) -> Result<RunningWorker, Error> {
        let client = match self.client {
            Some(client) => client,
            None => Client::current_or_default().await?,
        };
        self.plan.periodics.iter().try_for_each(|periodic| periodic.check(&client))?;
        let stop = Stop::default();
        let (result_sender, ended) = oneshot::channel();
        let (tasks, asked) = (Handle::current(), stop.clone());
        let spawned = thread::Builder::new().name("yadtq-worker".to_owned()).spawn(move || {
            let work = || work(&client, &self.plan, &tasks, &asked, signals);
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(died()));
            if let Err(error) = &result {
                error!(event = "worker_failed", %error, "the worker has ended");
            }
            // Nobody may be listening any more.
            let _ = result_sender.send(result);
        });
        spawned.map_err(|e| Error::Worker { detail: format!("its thread could not be started: {e}") })?;
        Ok(RunningWorker { stop, ended })
    }
}

impl RunningWorker {
    /// Waits until the worker ends by itself, which it does only when it has failed. Cancel safe.
    ///
    /// # Errors
    /// Why it has ended.
    pub async fn ended(&mut self) -> Result<(), Error> {
        (&mut self.ended).await.unwrap_or_else(|_| Err(died()))
    }

    /// Takes nothing new, waits for running tasks up to the drain timeout, hands the rest back, and ends.
    ///
    /// # Errors
    /// The worker had failed.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.drain.cancel();
        (&mut self.ended).await.unwrap_or_else(|_| Err(died()))
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        self.stop.drain.cancel();
    }
}

fn died() -> Error {
    Error::Worker { detail: "its thread panicked; the log says where".to_owned() }
}

/// The worker's thread.
fn work(client: &Client, plan: &Arc<Plan>, tasks: &Handle, stop: &Stop, signals: bool) -> Result<(), Error> {
    let failed = |what: &str, e: std::io::Error| Error::Worker { detail: format!("{what}: {e}") };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| failed("its runtime could not be started", e))?;
    runtime.block_on(async {
        if signals {
            let mut next = listen().map_err(|e| failed("signals cannot be listened to", e))?;
            let stop = stop.clone();
            tokio::spawn(async move {
                for token in [stop.drain, stop.now] {
                    let signal = next.recv().await;
                    info!(event = "worker_stopping", signal, "asked to stop");
                    token.cancel();
                }
            });
        }
        loop {
            // Random, so that workers that are started together watch over others than each other.
            let id: WorkerId = Arc::from(Uuid::new_v4().to_string());
            match event_loop::run(id, client, plan, tasks, stop).await? {
                Exit::Stopped => return Ok(()),
                // What it held may have been finished and forgotten by now: it goes on as a new worker.
                Exit::StartsOver => {}
            }
        }
    })
}

/// The signals that stop a worker.
#[cfg(unix)]
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn listen() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};

    Ok(Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
}

#[cfg(unix)]
impl Signals {
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
fn listen() -> std::io::Result<Signals> {
    Ok(Signals)
}

#[cfg(not(unix))]
impl Signals {
    async fn recv(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("queues", &self.plan.queues).finish_non_exhaustive()
    }
}
