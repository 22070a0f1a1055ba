//! Runs tasks: `async` ones on the application's runtime, plain ones on its blocking pool.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};

use super::run::Run;
use crate::{
    client::{Client, inherited},
    clock::millis,
    core::names::WorkerId,
    task::{ArgsError, Body, Context, ProgressBuffer, Reader, RunBlocking, RunFuture, States},
    wire::envelope::Args,
    worker::{
        effect::Ended,
        job::{Lane, RunId},
    },
};

/// A run has ended, in whichever way.
#[derive(Debug)]
pub(crate) struct RunFinished {
    pub(crate) run: RunId,
    /// The slot that it had.
    pub(crate) lane: Lane,
    pub(crate) ended: Ended,
}

/// What all runs need.
pub(crate) struct Executor {
    pub(crate) worker: WorkerId,
    /// Where tasks run.
    pub(crate) runtime: Handle,
    /// What `delay` uses inside a task.
    pub(crate) client: Client,
    /// What tasks get from `Context::state`.
    pub(crate) state: States,
    /// Cancelled when the worker begins to stop.
    pub(crate) stopping: CancellationToken,
    /// Where the progress of running tasks is reported.
    pub(crate) progress: Arc<ProgressBuffer>,
    /// Where the end of each run is reported.
    pub(crate) reports: mpsc::UnboundedSender<RunFinished>,
}

impl Executor {
    /// Starts a run. Returns the handle that drops it; `None` for a blocking task, which cannot be dropped.
    pub(crate) fn start(&self, run: &Run, now: Instant) -> Option<AbortHandle> {
        let (job, id, lane) = (&run.job, &run.id, run.lane());
        let definition = job.definition.as_ref()?;
        let (envelope, task, queue) = (&job.envelope, Arc::clone(&job.ask.task), Arc::clone(&job.ask.queue));
        info!(event = "task_started", worker = %self.worker, task_id = %id.task.shown(), task = %task, queue = %queue,
            priority = %job.at.source.priority, attempt = envelope.attempt, deliveries = run.deliveries,
            waited_ms = millis(now.saturating_duration_since(job.received)), "task started");
        let span =
            info_span!("task", task_id = %id.task.shown(), task = %task, queue = %queue, attempt = envelope.attempt);
        let (cancel, state) = (run.cancel.clone(), self.state.clone());
        let ctx = Context::new(id.task.clone(), task, queue, envelope.attempt, id.token, cancel, state).in_worker(
            envelope.last_error.clone(),
            job.record.headers.clone(),
            self.stopping.clone(),
            &self.progress,
        );
        let (limit, args, client) = (job.options().timeout, envelope.args.clone(), self.client.clone());
        let run_ctx = ctx.clone();
        let finished = RunFinished { run: id.clone(), lane, ended: Ended::Dropped };
        let reporter = Reporter { finished: Some(finished), reports: self.reports.clone() };
        match definition.body {
            Body::Async(body) => {
                let future = async move {
                    let run = AssertUnwindSafe(run_async(body, ctx, args, limit)).catch_unwind();
                    reporter.report(run.await.unwrap_or_else(|panic| Ended::Panicked(message(&*panic))));
                };
                let future = client.scope(inherited::scope(run_ctx, future));
                Some(self.runtime.spawn(future.instrument(span)).abort_handle())
            }
            Body::Blocking(body) => {
                let begun = Arc::clone(&run.begun);
                self.runtime.spawn_blocking(move || {
                    begun.get_or_init(Instant::now);
                    let run = || inherited::scope_blocking(run_ctx, || run_blocking(body, ctx, &args));
                    let run = || span.in_scope(|| client.scope_blocking(run));
                    let run = || catch_unwind(AssertUnwindSafe(run));
                    let ended = || run().unwrap_or_else(|panic| Ended::Panicked(message(&*panic)));
                    reporter.report(within(limit, ended));
                });
                None
            }
        }
    }

    /// Whether the runtime on which tasks run has ended.
    pub(crate) fn is_gone(&self) -> bool {
        // Such a runtime refuses what is spawned at once.
        matches!(self.runtime.spawn(async {}).now_or_never(), Some(Err(_)))
    }
}

async fn run_async(
    body: fn(Context, Reader<'_>) -> Result<RunFuture, ArgsError>, ctx: Context, args: Args, limit: Option<Duration>,
) -> Ended {
    let cancel = ctx.clone();
    let future = match Reader::new(&args).and_then(|reader| body(ctx, reader)) {
        Ok(future) => future,
        Err(error) => return Ended::Arguments(error),
    };
    let Some(limit) = limit else { return Ended::Returned(future.await) };
    match timeout(limit, future).await {
        Ok(finished) => Ended::Returned(finished),
        Err(_) => {
            cancel.cancel();
            Ended::TimedOut(limit)
        }
    }
}

fn run_blocking(body: fn(Context, Reader<'_>) -> Result<RunBlocking, ArgsError>, ctx: Context, args: &Args) -> Ended {
    match Reader::new(args).and_then(|reader| body(ctx, reader)) {
        Ok(run) => Ended::Returned(run()),
        Err(error) => Ended::Arguments(error),
    }
}

/// A run that took too long has failed, even if the event loop had no time to notice while it ran.
fn within(limit: Option<Duration>, run: impl FnOnce() -> Ended) -> Ended {
    let begun = Instant::now();
    let ended = run();
    let took = begun.elapsed();
    if limit.is_some_and(|limit| took > limit) { Ended::TimedOut(took) } else { ended }
}

/// Reports to the event loop how a run ended, even if its future is dropped.
struct Reporter {
    finished: Option<RunFinished>,
    reports: mpsc::UnboundedSender<RunFinished>,
}

impl Reporter {
    fn report(mut self, ended: Ended) {
        if let Some(finished) = &mut self.finished {
            finished.ended = ended;
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(mut finished) = self.finished.take() {
            if matches!(finished.ended, Ended::Dropped) && std::thread::panicking() {
                // In the `Drop` of what it has left behind, or of its panic.
                finished.ended = Ended::Panicked("panicked while it was dropped".to_owned());
            }
            // Fails only when the loop has ended, and then nobody waits.
            let _ = self.reports.send(finished);
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_run_is_held_to_its_timeout() {
        let nap = |limit| {
            within(limit, || {
                std::thread::sleep(Duration::from_millis(20));
                Ended::Returned(Ok("1".to_owned()))
            })
        };
        assert!(matches!(nap(Some(Duration::from_millis(5))), Ended::TimedOut(took) if took.as_millis() >= 20));
        assert!(matches!(nap(Some(Duration::from_secs(60))), Ended::Returned(Ok(_))));
        assert!(matches!(nap(None), Ended::Returned(Ok(_))));
    }
}
