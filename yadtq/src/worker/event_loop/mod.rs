//! The one loop of a worker: it owns the parts, gives them events, and applies their effects. It alone makes calls to Kafka
//! and Redis.
//!
//! ```text
//!  Serving ─► Draining ─► Stopping ─► Exit::Stopped
//!     └─ suspended for too long, or declared dead ─► Exit::StartsOver
//! ```
//! A worker that stops gives its partitions at once, so that others get what waits and watch what still runs here. Then it
//! waits for what runs, and in the end cuts it off.

mod answers;
mod apply;
mod offers;
mod requests;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    background::{
        heartbeat::{Counts, Heartbeat},
        memory, periodic, scheduler,
        suspend::SuspendDetector,
    },
    calls::{self, Answer, Calls, Kind},
    effect::{Effect, Effects, Now},
    finish::{Finisher, too_large::TooLarge},
    intake::{Intake, ownership::Ownership},
    job::TopicId,
    options::Plan,
    runs::{
        LONGEST_TIMER, Runs,
        executor::{Executor, RunFinished},
        extend_interval,
    },
    start::Start,
};
use crate::{
    broker::{Broker, Consumer, Subscription},
    client::Client,
    core::names::WorkerId,
    error::Error,
    restart,
    store::Store,
    wire::record::asks_to_end_within,
};

/// How long tasks that were cut off may take to end; after that, how long leaving the servers may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the commit of what has ended may take before the partitions of a worker that stops are given all the same.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the scheduler may take to end, after the worker has drained.
const SCHEDULER_LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The most finished runs that are taken from the channel at once.
const FINISHED_BATCH: usize = 512;

/// Why the loop ended.
pub(super) enum Exit {
    /// The worker was asked to stop.
    Stopped,
    /// The worker was declared dead, or its machine was suspended for so long that what it held means nothing any more.
    StartsOver,
}

/// How a worker is asked to end.
#[derive(Clone, Debug, Default)]
pub(in crate::worker) struct Stop {
    /// Take nothing new, and let what runs finish.
    pub(in crate::worker) drain: CancellationToken,
    /// Wait no longer.
    pub(in crate::worker) now: CancellationToken,
}

/// The states of a worker, in their order.
enum State {
    /// Takes tasks.
    Serving,
    /// Waits for what runs, at most until this time. Before that, everything is asked to end, if it was not yet.
    Draining { until: Instant, asks_at: Option<Instant> },
    /// Has cut off what runs, and waits for its end, at most until this time.
    Stopping { until: Instant },
}

/// A worker at work.
struct EventLoop {
    id: WorkerId,
    plan: Arc<Plan>,
    client: Client,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    state: State,
    calls: Calls,
    effects: Effects,
    intake: Intake,
    start: Start,
    runs: Runs,
    finisher: Finisher,
    too_large: Arc<TooLarge>,
    executor: Executor,
    ownership: Ownership,
    heartbeat: Heartbeat,
    /// Whether this worker was declared dead.
    is_gone: bool,
    /// Whether the runtime on which tasks run has ended.
    is_runtime_gone: bool,
    suspend: SuspendDetector,
    consumer: Arc<dyn Consumer>,
    /// By the index of their topics.
    subscriptions: Vec<Arc<dyn Subscription>>,
    control_topic: Arc<str>,
    controls: Arc<dyn Subscription>,
    /// Whether the control topic was found and is being read.
    is_reading_controls: bool,
    /// Ends the present subscription to the worker's channel.
    listening: CancellationToken,
    stop_polling: CancellationToken,
    stop_scheduler: CancellationToken,
    /// Gives the partitions of a worker that stops.
    hand_over: Option<JoinHandle<()>>,
}

/// Works until it is asked to stop.
pub(super) async fn run(
    id: WorkerId, client: &Client, plan: &Arc<Plan>, tasks: &Handle, stop: &Stop,
) -> Result<Exit, Error> {
    // The producer is shared with the client. The connection to Redis is not: leases must not wait behind what the client asks for.
    let (broker, store) = (Arc::clone(client.broker()), client.config().open_store()?);
    let (reports, mut finished) = mpsc::unbounded_channel();
    let consumer = broker.consumer()?;
    let mut worker = EventLoop::new(id, client, plan, tasks, consumer, store, reports);
    info!(
        event = "worker_started",
        worker = %worker.id,
        servers = %client.config().servers(),
        queues = ?plan.queues.iter().map(ToString::to_string).collect::<Vec<_>>(),
        tasks = ?plan.tasks.keys().collect::<Vec<_>>(),
        "worker starts"
    );
    let scheduler = worker.start_background();
    let exit = worker.serve(&mut finished, stop).await;
    worker.stop_scheduler.cancel();
    match exit {
        Exit::Stopped => worker.leave().await,
        Exit::StartsOver => worker.forget().await,
    }
    // It has had that time to end; a panic in it was logged where it happened.
    let _ = timeout(SCHEDULER_LEAVE_TIMEOUT, scheduler).await;
    worker.calls.clear();
    if timeout(LEAVE_TIMEOUT, worker.consumer.close()).await.is_err() {
        warn!(event = "goodbye_failed", worker = %worker.id, "kafka did not answer; others read what was not committed again");
    }
    if worker.is_runtime_gone {
        let detail =
            "the Tokio runtime on which its tasks run has ended: start it on one that lives as long as it does"
                .to_owned();
        return Err(Error::Worker { detail });
    }
    Ok(exit)
}

impl EventLoop {
    fn new(
        id: WorkerId, client: &Client, plan: &Arc<Plan>, tasks: &Handle, consumer: Arc<dyn Consumer>,
        store: Arc<dyn Store>, reports: mpsc::UnboundedSender<RunFinished>,
    ) -> Self {
        let (clock, namespace, now) = (&client.config().clock, &client.config().namespace, Instant::now());
        let executor = Executor {
            worker: Arc::clone(&id),
            runtime: tasks.clone(),
            client: client.clone(),
            state: plan.state.clone(),
            stopping: CancellationToken::new(),
            progress: Arc::default(),
            reports,
        };
        let intake = Intake::new(&id, plan, namespace, now);
        let sources = intake.source_ids().map(|source| (TopicId::from(source), Arc::clone(intake.topic(source))));
        let delayed = (TopicId::delayed(plan.queues.len()), Arc::from(namespace.delayed_topic()));
        let topics: Vec<_> = sources.chain(plan.options.scheduler.then_some(delayed)).collect();
        let subscriptions = topics.iter().map(|(_, topic)| consumer.subscribe(topic)).collect();
        let control_topic: Arc<str> = namespace.control_topic().into();
        let controls = consumer.subscribe(&control_topic);
        let (slots, lease) = (plan.options.slots(), plan.options.lease);
        Self {
            state: State::Serving,
            calls: Calls::default(),
            effects: Effects::new(),
            start: Start::new(&id, plan),
            runs: Runs::new(&id, plan, now),
            finisher: Finisher::new(&id, plan, namespace),
            too_large: Arc::new(TooLarge {
                worker: Arc::clone(&id),
                namespace: namespace.clone(),
                broker: Arc::clone(client.broker()),
                store: Arc::clone(&store),
                options: plan.options.clone(),
            }),
            ownership: Ownership::new(&id, slots, lease, topics.into_iter(), now),
            heartbeat: Heartbeat::new(&id, plan, clock.now_ms(), now),
            is_gone: false,
            is_runtime_gone: false,
            suspend: SuspendDetector::new(Arc::clone(clock)),
            consumer,
            subscriptions,
            control_topic,
            controls,
            intake,
            executor,
            is_reading_controls: false,
            listening: CancellationToken::new(),
            stop_polling: CancellationToken::new(),
            stop_scheduler: CancellationToken::new(),
            hand_over: None,
            plan: Arc::clone(plan),
            client: client.clone(),
            broker: Arc::clone(client.broker()),
            store,
            id,
        }
    }

    fn start_background(&mut self) -> JoinHandle<()> {
        let (id, store) = (Arc::clone(&self.id), Arc::clone(&self.store));
        self.calls.start(Kind::Inspect, calls::inspect(Arc::clone(&self.broker), Arc::clone(&store)));
        self.listen();
        let (client, plan, stop) = (self.client.clone(), Arc::clone(&self.plan), self.stop_polling.clone());
        self.calls.start(Kind::Periodic, async move {
            let send = || {
                let (id, store) = (Arc::clone(&id), Arc::clone(&store));
                periodic::run(id, client.clone(), store, Arc::clone(&plan.periodics), stop.clone())
            };
            restart::run("periodic", send).await;
            Answer::Done
        });
        let (watcher, store, stop) = (Arc::clone(&self.id), Arc::clone(&self.store), self.stop_polling.clone());
        self.calls.start(Kind::Memory, async move {
            restart::run("memory", || memory::run(Arc::clone(&watcher), Arc::clone(&store), stop.clone())).await;
            Answer::Done
        });
        let context = scheduler::SchedulerContext {
            worker: Arc::clone(&self.id),
            namespace: self.client.config().namespace.clone(),
            broker: Arc::clone(&self.broker),
            clock: Arc::clone(&self.client.config().clock),
            too_large: Arc::clone(&self.too_large),
            suspend: self.suspend.clone(),
        };
        let stop = self.stop_scheduler.clone();
        let delayed = self.subscriptions.get(TopicId::delayed(self.plan.queues.len()).index()).cloned();
        tokio::spawn(async move {
            if let Some(delayed) = delayed {
                scheduler::run(context, delayed, stop).await;
            }
        })
    }

    async fn serve(&mut self, finished: &mut mpsc::UnboundedReceiver<RunFinished>, stop: &Stop) -> Exit {
        let mut extend = ticks(extend_interval(self.plan.options.lease));
        let mut batch = Vec::with_capacity(FINISHED_BATCH);
        loop {
            self.start_calls();
            if self.advance(stop, Instant::now()) {
                return Exit::Stopped;
            }
            let wake_at = self.next_due(Instant::now());
            tokio::select! {
                Some(answer) = self.calls.next() => self.answered(answer),
                _ = finished.recv_many(&mut batch, FINISHED_BATCH) => {
                    let now = Instant::now();
                    for finished in batch.drain(..) {
                        self.runs.finished(finished, now, &mut self.effects);
                    }
                    self.is_runtime_gone |= std::mem::take(&mut self.runs.has_dropped) && self.executor.is_gone();
                    self.effects.push_back(Effect::FillSlots);
                }
                _ = extend.tick() => self.extend(Instant::now()),
                () = sleep_until(wake_at) => {}
                () = stop.drain.cancelled(), if matches!(self.state, State::Serving) => {}
                () = stop.now.cancelled(), if matches!(self.state, State::Draining { .. }) => {}
            }
            if self.suspend.was_suspended() || self.is_gone {
                return Exit::StartsOver;
            }
        }
    }

    /// Takes the next step on the way to the end, if it is time. `true`: nothing is left to do.
    fn advance(&mut self, stop: &Stop, now: Instant) -> bool {
        match self.state {
            State::Serving if stop.drain.is_cancelled() || self.is_runtime_gone => {
                let limit = self.plan.options.drain_timeout.min(LONGEST_TIMER);
                self.executor.stopping.cancel();
                info!(event = "worker_draining", worker = %self.id, running = self.runs.table.len(), ?limit,
                    "takes no new tasks");
                self.stop_scheduler.cancel();
                self.stop_polling.cancel();
                self.intake.stop();
                let read: Vec<_> = self.ownership.read().collect();
                read.iter().for_each(|(topic, partitions)| self.store(*topic, partitions));
                self.start.offers.received.decline_all();
                self.hand_over = Some(tokio::spawn(self.hand_over()));
                self.runs.give_back_ready(|_| true, &mut self.effects);
                self.state = State::Draining { until: now + limit, asks_at: Some(now + asks_to_end_within(limit)) };
            }
            State::Draining { until, asks_at: Some(at) } if now >= at => {
                self.runs.ask_all_to_end();
                self.state = State::Draining { until, asks_at: None };
            }
            State::Draining { until, .. } if self.is_idle() || now >= until || stop.now.is_cancelled() => {
                self.runs.cut_off_all();
                self.state = State::Stopping { until: now + LEAVE_TIMEOUT };
            }
            State::Stopping { until } => return self.has_stopped() || now >= until,
            _ => return false,
        }
        self.start_calls();
        self.advance(stop, now)
    }

    fn is_draining(&self) -> bool {
        !matches!(self.state, State::Serving)
    }

    /// Nothing runs, and everything is recorded and published.
    fn is_idle(&self) -> bool {
        let has_returned = self.start.limits.has_returned_all() && self.calls.count(Kind::ReturnPermits) == 0;
        let calls = [Kind::Claim, Kind::Publish, Kind::NoteDeadLetters, Kind::Periodic];
        self.runs.table.is_empty()
            && self.finisher.has_noted_all()
            && has_returned
            && self.has_answered_offers()
            && calls.iter().all(|&kind| self.calls.count(kind) == 0)
    }

    /// Nothing is left that could be given back: what still runs cannot be cut off.
    fn has_stopped(&self) -> bool {
        let calls = [Kind::Claim, Kind::Publish, Kind::NoteDeadLetters, Kind::Finish];
        self.runs.are_only_blocking()
            && self.has_answered_offers()
            && self.finisher.completer.is_empty()
            && self.finisher.has_noted_all()
            && calls.iter().all(|&kind| self.calls.count(kind) == 0)
    }

    /// When something has to be done although nothing happens.
    fn next_due(&self, now: Instant) -> Instant {
        let until = match self.state {
            State::Draining { until, asks_at } => Some(asks_at.unwrap_or(until)),
            State::Stopping { until } => Some(until),
            State::Serving => None,
        };
        let due = [
            until,
            self.ownership_due(),
            self.heartbeat_due(),
            self.start.claims.next_due(),
            self.intake.next_due(),
            self.offers_due(now),
            self.runs.next_due(),
            self.finisher.completer.next_due(),
            self.calls.next_due(now),
        ];
        due.into_iter().flatten().min().unwrap_or(now + LONGEST_TIMER)
    }

    fn now(&self) -> Now {
        Now { at: Instant::now(), ms: self.client.config().clock.now_ms() }
    }

    /// Leaves the servers.
    async fn leave(&mut self) {
        for run in self.runs.table.iter() {
            warn!(event = "task_abandoned", worker = %self.id, task_id = %run.id.task.shown(), task = %run.job.ask.task,
                "it does not end; its lease does, in a few seconds");
        }
        let hand_over = self.hand_over.take();
        let leave = async {
            if let Some(hand_over) = hand_over {
                // Only a panic could make it fail, and that is logged where it happens.
                let _ = hand_over.await;
            }
            self.store.leave(&self.id).await
        };
        match timeout(LEAVE_TIMEOUT, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(event = "goodbye_failed", worker = %self.id, %error, "the others will notice"),
            Err(_) => warn!(event = "goodbye_failed", worker = %self.id, "no answer; the others will notice"),
        }
        let Counts { processed, failed, .. } = self.counts();
        info!(event = "worker_disconnected", worker = %self.id, processed, failed, "worker ends");
    }

    /// Drops everything: other workers may have finished it by now, and the store may have forgotten it.
    async fn forget(&mut self) {
        let running = self.runs.table.len();
        match self.is_gone {
            true => warn!(event = "worker_declared_dead", worker = %self.id, running,
                "others have declared this worker dead; everything is dropped, and a new worker goes on"),
            false => warn!(event = "worker_stood_still", worker = %self.id, running,
                "this machine stood still for too long; everything is dropped, and a new worker goes on"),
        }
        // No extension may go out any more: it would take a lease back that nobody holds.
        self.calls.clear();
        self.runs.cut_off_all();
        let (by, requests) = self.ownership.leave();
        // So that its partitions are free at once, and not when its lease ends.
        let _ = timeout(HAND_OVER_TIMEOUT, self.store.own(&by, &requests)).await;
    }

    /// Reads nothing more, commits what has ended, and gives all partitions.
    fn hand_over(&self) -> impl Future<Output = ()> + Send + 'static {
        let read: Vec<_> =
            self.ownership.read().map(|(topic, read)| (Arc::clone(self.subscription(topic)), read)).collect();
        read.iter().for_each(|(subscription, partitions)| subscription.revoke(partitions));
        let (store, id, (by, requests)) = (Arc::clone(&self.store), Arc::clone(&self.id), self.ownership.leave());
        async move {
            let commits = join_all(read.iter().map(|(subscription, partitions)| subscription.commit(partitions)));
            // What is not committed is read again by the next owner, and found to have ended.
            let _ = timeout(HAND_OVER_TIMEOUT, commits).await;
            if let Err(error) = store.own(&by, &requests).await {
                warn!(event = "goodbye_failed", worker = %id, %error, "its partitions are free when its lease ends");
            }
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
