//! The worker's one loop, and all of its state.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, time::DelayQueue};
use tracing::info;

use super::{
    builder::Plan,
    claims::Claims,
    execute::{Finish, Slots},
    heartbeat::Stillness,
    intake::Intake,
    job::Run,
    levels,
    limits::Limits,
    orders::Standing,
    run::Stop,
    scheduler,
    settle::Ending,
    source::Source,
    step::{Call, Due},
};
use crate::{
    broker::Broker,
    client::Client,
    core::names::{TaskId, WorkerId},
    error::Error,
    report::Board,
    store::Store,
};

/// How long a lease lasts.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// How often leases of running tasks are extended.
pub(super) const EXTEND: Duration = Duration::from_secs(2);
/// How often the worker says that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// How long the scheduler may take to leave, beyond the drain.
const GOODBYE: Duration = Duration::from_secs(3);
/// Finished tasks that are taken out of the channel at once.
pub(super) const FINISHES: usize = 512;

/// Why the loop ended.
pub(super) enum Exit {
    /// It was told to.
    Stopped,
    /// It stood still for so long that what it held means nothing any more.
    StoodStill,
}

/// All that a worker knows.
pub(super) struct Control {
    pub(super) id: WorkerId,
    pub(super) plan: Plan,
    pub(super) client: Client,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) store: Arc<dyn Store>,
    /// Where tasks run.
    pub(super) tasks: Handle,
    pub(super) started_at: u64,
    /// Calls under way.
    pub(super) calls: FuturesUnordered<Call>,
    /// What waits for its time.
    pub(super) later: DelayQueue<Due>,
    pub(super) sources: Vec<Source>,
    pub(super) intake: Intake,
    pub(super) claims: Claims,
    pub(super) limits: Limits,
    /// What operators have ordered.
    pub(super) standing: Standing,
    /// Tasks whose lease this worker holds.
    pub(super) runs: HashMap<TaskId, Run>,
    pub(super) slots: Slots,
    /// How far they are.
    pub(super) board: Arc<Board>,
    /// Ends to record.
    pub(super) endings: VecDeque<Ending>,
    pub(super) settling: bool,
    pub(super) extending: bool,
    /// Calls under way that give tasks back.
    pub(super) releasing: usize,
    /// Publications under way that offsets wait for.
    pub(super) publishing: usize,
    /// Ticks of periodic tasks are produced, or the last ones still on their way.
    pub(super) ticking: bool,
    /// Takes nothing new.
    pub(super) draining: bool,
    pub(super) stop_polling: CancellationToken,
    stop_scheduler: CancellationToken,
    pub(super) stillness: Stillness,
    pub(super) beating: bool,
    pub(super) connected: bool,
    pub(super) processed: u64,
    pub(super) failed: u64,
    pub(super) overrun: u64,
    pub(super) finish: mpsc::UnboundedSender<Finish>,
}

/// Works until told to stop.
pub(super) async fn run(
    id: WorkerId, client: &Client, plan: &Plan, tasks: &Handle, stop: &Stop,
) -> Result<Exit, Error> {
    let (broker, store) = client.config().open()?;
    let namespace = &client.config().namespace;
    let sources = levels::sources(&*broker, namespace, &plan.queues)?;
    let (finish, mut finishes) = mpsc::unbounded_channel();
    let mut control = Control {
        started_at: client.config().clock.now_ms(),
        stillness: Stillness::new(Arc::clone(&client.config().clock)),
        slots: Slots::new(&plan.options, plan.queues.len()),
        sources,
        id,
        plan: plan.clone(),
        client: client.clone(),
        broker,
        store,
        tasks: tasks.clone(),
        calls: FuturesUnordered::new(),
        later: DelayQueue::new(),
        intake: Intake::default(),
        claims: Claims::new(plan.queues.len(), plan.options.strict_priority),
        limits: Limits::new(),
        standing: Standing::default(),
        runs: HashMap::new(),
        board: Arc::default(),
        endings: VecDeque::new(),
        settling: false,
        extending: false,
        releasing: 0,
        publishing: 0,
        ticking: false,
        draining: false,
        stop_polling: CancellationToken::new(),
        stop_scheduler: CancellationToken::new(),
        beating: false,
        connected: false,
        processed: 0,
        failed: 0,
        overrun: 0,
        finish,
    };
    info!(
        event = "worker_started",
        worker = %control.id,
        servers = %client.config().servers(),
        queues = ?plan.queues.iter().map(ToString::to_string).collect::<Vec<_>>(),
        tasks = ?plan.tasks.keys().collect::<Vec<_>>(),
        "worker starts"
    );
    control.inspect();
    control.listen();
    control.start_ticking();
    control.pass_progress_on();
    control.look_for_topics(Duration::ZERO);
    control.follow_orders(Duration::ZERO);
    let scheduler = control.start_scheduler();
    let exit = control.serve(&mut finishes, stop).await;
    control.stop_scheduler.cancel();
    match exit {
        Exit::Stopped => control.drain(&mut finishes, stop).await,
        Exit::StoodStill => control.forget().await,
    }
    // It has had that time to hand over; a panic in it was logged where it happened.
    let _ = timeout(GOODBYE, scheduler).await;
    Ok(exit)
}

impl Control {
    /// Fires delayed tasks beside the loop, if this worker takes part.
    fn start_scheduler(&self) -> JoinHandle<()> {
        let needs = scheduler::Needs {
            worker: Arc::clone(&self.id),
            namespace: self.client.config().namespace.clone(),
            broker: Arc::clone(&self.broker),
            clock: Arc::clone(&self.client.config().clock),
        };
        let (takes_part, stop) = (self.plan.options.scheduler, self.stop_scheduler.clone());
        tokio::spawn(async move {
            if takes_part {
                scheduler::run(needs, stop).await;
            }
        })
    }

    async fn serve(&mut self, finishes: &mut mpsc::UnboundedReceiver<Finish>, stop: &Stop) -> Exit {
        let (mut extend, mut beat) = (interval(EXTEND), interval(BEAT));
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(FINISHES);
        loop {
            self.pump_polls();
            self.pump_claims();
            self.pump_limits();
            self.pump_settling();
            tokio::select! {
                Some(step) = self.calls.next() => self.take(step),
                _ = finishes.recv_many(&mut batch, FINISHES) => self.finished(&mut batch),
                Some(due) = self.later.next() => self.due(due.into_inner()),
                _ = extend.tick() => self.extend(),
                _ = beat.tick() => self.beat(),
                () = stop.drain.cancelled() => return Exit::Stopped,
            }
            if self.stillness.stood_still() {
                return Exit::StoodStill;
            }
        }
    }
}
