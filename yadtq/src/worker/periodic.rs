//! Produces the ticks of the periodic tasks that this worker declares.
//!
//! Every worker that declares one does this, and none leads: a tick is a task whose id follows from name and time, so
//! whoever sends it, and how often, it is one task. What the store says of the latest acknowledged tick, and a little
//! jitter, spare most of the others the sending. What is due when is decided in [`crate::core::ticks`].
//!
//! One loop, which goes by the worker's clock. Without the store it goes on from memory, and all of them send; without
//! Kafka it tries again. It ends when the worker drains, after what is on its way.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    control::Control,
    execute::millis,
    step::{PAUSE, Step},
};
use crate::{
    client::Client,
    core::{
        names::WorkerId,
        schedule::{self, Ms},
        ticks::{Declaration, Known, Ticker},
    },
    error::Error,
    periodic::Plan,
    store::Store,
};

/// How often it is said that they are declared.
const REFRESH: Ms = 10_000;
/// The most that this worker leaves a tick to others.
const JITTER: Ms = 100;
/// A clock that jumps is noticed after that.
const LONGEST_SLEEP: Ms = 1_000;

impl Control {
    /// Starts the loop, if there is something to do for it.
    pub(super) fn start_ticking(&mut self) {
        if self.plan.periodics.is_empty() {
            return;
        }
        let (client, store) = (self.client.clone(), Arc::clone(&self.store));
        let now = now(&client);
        let tasks = self.plan.periodics.iter().map(|plan| Periodic {
            plan: plan.clone(),
            ticker: Ticker::new(plan.schedule.clone(), plan.missed, now),
            acknowledged: None,
        });
        let ticks = Ticks { worker: Arc::clone(&self.id), client, store, tasks: tasks.collect(), refresh_at: now };
        let stop = self.stop_polling.clone();
        self.ticking = true;
        self.calls.push(Box::pin(async move {
            ticks.run(&stop).await;
            Step::Ticked
        }));
    }
}

/// One of them.
struct Periodic {
    plan: Plan,
    ticker: Ticker,
    /// The latest tick that this worker knows to be acknowledged, as all before it.
    acknowledged: Option<Ms>,
}

/// All of them.
struct Ticks {
    worker: WorkerId,
    client: Client,
    store: Arc<dyn Store>,
    tasks: Vec<Periodic>,
    refresh_at: Ms,
}

fn now(client: &Client) -> Ms {
    client.config().clock.now_ms()
}

impl Ticks {
    async fn run(mut self, stop: &CancellationToken) {
        loop {
            let pause = self.turn().await;
            let wait = pause.unwrap_or_else(|| self.wait());
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
        let first = ticks.min().unwrap_or(Ms::MAX).min(self.refresh_at);
        Duration::from_millis(first.saturating_sub(now).clamp(1, LONGEST_SLEEP))
    }

    /// When this worker turns to a tick.
    fn ready_at(&self, plan: &Plan, tick: Ms) -> Ms {
        let mut hasher = DefaultHasher::new();
        (&self.worker, &plan.name, tick).hash(&mut hasher);
        tick.saturating_add(hasher.finish() % JITTER)
    }

    /// Does what is to be done now; returns how long to wait if something could not be done.
    async fn turn(&mut self) -> Option<Duration> {
        let now = now(&self.client);
        // Also once the clock was set back.
        let refresh = now >= self.refresh_at || now + REFRESH < self.refresh_at;
        let is_ready = |task: &Periodic| task.ticker.next().is_some_and(|tick| self.ready_at(&task.plan, tick) <= now);
        let at: Vec<usize> = (0..self.tasks.len()).filter(|&i| refresh || is_ready(&self.tasks[i])).collect();
        if at.is_empty() {
            return None;
        }
        let known = self.declare(&at, now).await;
        if refresh {
            self.refresh_at = now + if known.is_some() { REFRESH } else { millis(PAUSE) };
        }
        let sent = self.send(&at, now, &known.unwrap_or_else(|| vec![None; at.len()])).await;
        if !sent.acknowledged.is_empty() {
            self.declare(&sent.acknowledged, now).await;
        }
        sent.has_failed.then_some(PAUSE)
    }

    /// Says that these are declared, and what is known of them; returns what the store knows, if it can tell.
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

    /// Sends what is due of these.
    async fn send(&mut self, at: &[usize], now: Ms, known: &[Option<Known>]) -> Sent {
        let mut sending = Vec::new();
        for (&i, known) in at.iter().zip(known) {
            let Periodic { plan, ticker, .. } = &mut self.tasks[i];
            let due = ticker.due(now, known.and_then(|known| known.last));
            if let Some(missed) = due.missed {
                warn!(event = "ticks_missed", worker = %self.worker, periodic = %plan.name,
                    latest = schedule::written(missed), "skipped");
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
                        tick = schedule::written(tick), %error, "it is sent again");
                    failed = Some(i);
                }
                _ if failed == Some(i) => {}
                Ok(handle) => {
                    if now - tick > LONGEST_SLEEP {
                        info!(event = "tick_late", worker = %self.worker, periodic = %plan.name, task_id = %handle.id(),
                            late_ms = now - tick, "a tick that was missed, or had to wait");
                    }
                    debug!(event = "tick_sent", worker = %self.worker, periodic = %plan.name, task_id = %handle.id(),
                        late_ms = now - tick, "sent");
                    ticker.done(tick);
                    *acknowledged = (*acknowledged).max(Some(tick));
                    if sent.acknowledged.last() != Some(&i) {
                        sent.acknowledged.push(i);
                    }
                }
                Err(error) => {
                    error!(event = "tick_refused", worker = %self.worker, periodic = %plan.name,
                        tick = schedule::written(tick), %error, "it will not run");
                    ticker.done(tick);
                }
            }
        }
        sent.has_failed = failed.is_some();
        sent
    }
}

/// What became of a batch.
#[derive(Default)]
struct Sent {
    /// Those of which ticks were acknowledged.
    acknowledged: Vec<usize>,
    /// Something has to be sent again.
    has_failed: bool,
}
