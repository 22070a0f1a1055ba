//! Produces the ticks of the periodic tasks that this worker declares.
//!
//! Every worker that declares one does this, and none leads: a tick is a task whose id follows from name and time, so
//! whoever sends it, and how often, it is one task. Thanks to what the store says of the latest acknowledged tick, and
//! to a little jitter, most of the others need not send it. What is due when is decided in [`crate::core::ticks`].
//!
//! It is one loop, by the worker's clock. Without the store it goes on from memory, and all workers send every tick; without
//! Kafka it tries again. The loop ends when the worker drains, after the ticks that it is sending.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    client::Client,
    clock::millis,
    core::{
        names::WorkerId,
        schedule::{self, Ms},
        ticks::{Declaration, Known, Ticker},
    },
    error::Error,
    periodic::Plan,
    store::Store,
};

/// The time between two declarations of all periodic tasks to the store, in ms.
const DECLARE_INTERVAL: Ms = 10_000;
/// The longest time that this worker leaves a tick to others before it sends the tick itself, in ms.
const MAX_TICK_JITTER: Ms = 100;
/// The wait after a declaration or a tick that failed.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The longest sleep, in ms: a clock that jumps is noticed after that.
const MAX_SLEEP: Ms = 1_000;

/// Produces ticks until it is stopped. Ends at once if there is nothing to do.
pub(in crate::worker) async fn run(
    worker: WorkerId, client: Client, store: Arc<dyn Store>, declared: Arc<[Plan]>, stop: CancellationToken,
) {
    if declared.is_empty() {
        return;
    }
    let now = now(&client);
    let tasks = declared.iter().map(|plan| Periodic {
        plan: plan.clone(),
        ticker: Ticker::new(plan.schedule.clone(), plan.missed, now),
        acknowledged: None,
    });
    let tasks = tasks.collect();
    Ticks { worker, client, store, tasks, declare_at: now }.run(&stop).await;
}

/// One periodic task.
struct Periodic {
    plan: Plan,
    ticker: Ticker,
    /// The latest tick that this worker knows to be acknowledged, as all before it.
    acknowledged: Option<Ms>,
}

/// The periodic tasks that this worker declares.
struct Ticks {
    worker: WorkerId,
    client: Client,
    store: Arc<dyn Store>,
    tasks: Vec<Periodic>,
    /// When all of them are declared again, in ms since the Unix epoch.
    declare_at: Ms,
}

fn now(client: &Client) -> Ms {
    client.config().clock.now_ms()
}

impl Ticks {
    async fn run(mut self, stop: &CancellationToken) {
        loop {
            let retry_delay = self.send_due().await;
            let wait = retry_delay.unwrap_or_else(|| self.wait());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// How long there is nothing to do.
    fn wait(&self) -> Duration {
        let now = now(&self.client);
        let ticks = self.tasks.iter().filter_map(|task| Some(self.ready_at(&task.plan, task.ticker.next()?)));
        let first = ticks.min().unwrap_or(Ms::MAX).min(self.declare_at);
        Duration::from_millis(first.saturating_sub(now).clamp(1, MAX_SLEEP))
    }

    /// When this worker sends a tick, unless another one has by then.
    fn ready_at(&self, plan: &Plan, tick: Ms) -> Ms {
        let mut hasher = DefaultHasher::new();
        (&self.worker, &plan.name, tick).hash(&mut hasher);
        tick.saturating_add(hasher.finish() % MAX_TICK_JITTER)
    }

    /// Declares and sends what is due now. `Some`: something failed, and is tried again after this wait.
    async fn send_due(&mut self) -> Option<Duration> {
        let now = now(&self.client);
        // The second condition holds when the clock was set back.
        let declares_all = now >= self.declare_at || now + DECLARE_INTERVAL < self.declare_at;
        let is_ready = |task: &Periodic| task.ticker.next().is_some_and(|tick| self.ready_at(&task.plan, tick) <= now);
        let at: Vec<usize> = (0..self.tasks.len()).filter(|&i| declares_all || is_ready(&self.tasks[i])).collect();
        if at.is_empty() {
            return None;
        }
        let known = self.declare(&at, now).await;
        if declares_all {
            self.declare_at = now + if known.is_some() { DECLARE_INTERVAL } else { millis(RETRY_DELAY) };
        }
        let sent = self.send(&at, now, &known.unwrap_or_else(|| vec![None; at.len()])).await;
        if !sent.acknowledged.is_empty() {
            self.declare(&sent.acknowledged, now).await;
        }
        sent.has_failed.then_some(RETRY_DELAY)
    }

    /// Declares these tasks to the store, with the ticks that this worker knows to be acknowledged. Returns what the store
    /// knows of them; `None` if it does not answer.
    async fn declare(&mut self, at: &[usize], now: Ms) -> Option<Vec<Option<Known>>> {
        self.store.connected_for()?;
        let declaration = |&i: &usize| {
            let Periodic { plan, ticker, acknowledged } = &self.tasks[i];
            Declaration {
                name: Arc::clone(&plan.name),
                schedule: plan.schedule.to_string().into(),
                zone: plan.schedule.zone().map(Into::into),
                missed: plan.missed,
                task: plan.task().into(),
                queue: plan.queue.shared(),
                next: plan.schedule.after(now),
                // First it has to learn what was before, and so have the others.
                last: acknowledged.filter(|_| ticker.has_learned()),
                now,
            }
        };
        let declarations: Vec<_> = at.iter().map(declaration).collect();
        let answers = match self.store.declare(&declarations).await {
            Ok(answers) => answers,
            Err(error) => {
                warn!(event = "periodic_not_noted", worker = %self.worker, tasks = at.len(), %error,
                    "periodic tasks go on without redis");
                return None;
            }
        };
        let known = at.iter().zip(answers).map(|(&i, answer)| {
            let Periodic { plan, ticker, .. } = &mut self.tasks[i];
            match answer {
                Ok(known) => {
                    ticker.learn(known);
                    Some(known)
                }
                Err(error) => {
                    warn!(event = "periodic_not_noted", worker = %self.worker, periodic = %plan.name, %error,
                        "it goes on without redis");
                    None
                }
            }
        });
        Some(known.collect())
    }

    /// Sends the due ticks of these tasks.
    async fn send(&mut self, at: &[usize], now: Ms, known: &[Option<Known>]) -> Sent {
        let mut sending = Vec::new();
        for (&i, known) in at.iter().zip(known) {
            let Periodic { plan, ticker, .. } = &mut self.tasks[i];
            let due = ticker.due(now, known.and_then(|known| known.last));
            if let Some(missed) = due.missed {
                warn!(event = "ticks_missed", worker = %self.worker, periodic = %plan.name,
                    latest = schedule::format_tick(missed), "skipped");
            }
            for tick in due.ticks {
                ticker.tried(tick);
                sending.push((i, tick));
            }
        }
        let mut sent = Sent::default();
        if sending.is_empty() {
            return sent;
        }
        let calls: Vec<_> = sending.iter().map(|&(i, tick)| self.tasks[i].plan.call(tick)).collect();
        let answers = self.client.send_many(calls).await;
        // Of one that fails, all later ones wait: what is known to be acknowledged has no holes.
        let mut failed = None;
        for (&(i, tick), answer) in sending.iter().zip(answers) {
            let Periodic { plan, ticker, acknowledged } = &mut self.tasks[i];
            match answer {
                Err(
                    error @ (Error::Unacknowledged { .. } | Error::Broker(_) | Error::Store(_) | Error::Unique { .. }),
                ) => {
                    warn!(event = "tick_unacknowledged", worker = %self.worker, periodic = %plan.name,
                        tick = schedule::format_tick(tick), %error, "it is sent again");
                    failed = Some(i);
                }
                _ if failed == Some(i) => {}
                Ok(handle) => {
                    if now - tick > MAX_SLEEP {
                        info!(event = "tick_late", worker = %self.worker, periodic = %plan.name, task_id = %handle.id().shown(),
                            late_ms = now - tick, "a tick that was missed, or had to wait");
                    }
                    debug!(event = "tick_sent", worker = %self.worker, periodic = %plan.name, task_id = %handle.id().shown(),
                        late_ms = now - tick, "sent");
                    ticker.done(tick);
                    *acknowledged = (*acknowledged).max(Some(tick));
                    if sent.acknowledged.last() != Some(&i) {
                        sent.acknowledged.push(i);
                    }
                }
                Err(error) => {
                    error!(event = "tick_refused", worker = %self.worker, periodic = %plan.name,
                        tick = schedule::format_tick(tick), %error, "it will not run");
                    ticker.done(tick);
                }
            }
        }
        sent.has_failed = failed.is_some();
        sent
    }
}

/// What became of a batch of ticks.
#[derive(Default)]
struct Sent {
    /// The indices of the tasks of which ticks were acknowledged.
    acknowledged: Vec<usize>,
    /// Whether some tick has to be sent again.
    has_failed: bool,
}
