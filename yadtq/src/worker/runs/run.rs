//! One run: a task whose lease this worker holds, from the grant of the claim until its end is recorded.
//!
//! ```text
//!  Admission ──► Ready ──► Running ──► Ending
//!   (limits)      (slot)      └─ StopReason: asked to end
//! ```

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::permit::Permit;
use crate::{
    core::lifecycle::{Claimer, LeaseProof},
    store::Lease,
    worker::{
        effect::Grant,
        job::{Job, Lane, RunId},
        timers::TimerKey,
    },
};

/// A task that this worker holds the lease of.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) job: Arc<Job>,
    /// Records of the same task that came back while it runs: their offsets end with it.
    pub(crate) joined: Vec<Arc<Job>>,
    /// How often the task has crashed a worker.
    pub(crate) deliveries: u32,
    /// When the call was sent that last confirmed the lease.
    pub(crate) confirmed: Instant,
    /// When the claim was granted.
    pub(crate) granted: Instant,
    pub(crate) phase: Phase,
    /// Why it was asked to end, if it was.
    pub(crate) stop: Option<StopReason>,
    /// Asks the task to end.
    pub(crate) cancel: CancellationToken,
    pub(crate) limits: Limited,
    /// When the first line of a blocking task began: a while after its start, if no thread is free.
    pub(crate) begun: Arc<OnceLock<Instant>>,
}

/// Where a run stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It is not decided yet whether it may start: it waits for its limits.
    Admission,
    /// It waits for a slot.
    Ready,
    /// It runs.
    Running(Running),
    /// Its end is being recorded.
    Ending {
        /// When it started, if it did.
        started: Option<Instant>,
    },
    /// Its task is being given back, and its lease with it.
    GivenBack,
}

/// A run that has started.
#[derive(Debug)]
pub(crate) struct Running {
    /// When it started.
    pub(crate) since: Instant,
    /// Drops the future of an `async` task.
    pub(crate) abort: Option<AbortHandle>,
    /// What has to happen if it goes on for too long.
    pub(crate) timers: Vec<TimerKey>,
}

/// Why a run was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Another run has its task.
    LeaseLost,
    /// Its timeout is over: whatever it returns, it ends as timed out.
    TimedOut,
    /// Somebody revoked its task; a success stays one, unless the timeout was over.
    Revoked {
        /// Whether its timeout was over before that.
        timed_out: bool,
    },
}

/// What the limits have said of a run.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    /// When its rates admitted it.
    pub(crate) admitted: Option<Instant>,
    /// Its permit among the tasks that run at once.
    pub(crate) permit: Option<Permit>,
    /// When it is its turn, if it waited or waits for that under its rates, in ms since the Unix epoch.
    pub(crate) slot: Option<u64>,
}

impl Run {
    pub(crate) fn new(grant: Grant, phase: Phase, now: Instant) -> Self {
        let Grant { job, token, deliveries, sent } = grant;
        // Should it be rescheduled before it starts, it keeps its turn.
        let limits = Limited { slot: job.envelope.limit_slot, ..Limited::default() };
        Self {
            id: RunId { task: job.envelope.id.clone(), token },
            job,
            joined: Vec::new(),
            deliveries,
            confirmed: sent,
            granted: now,
            phase,
            stop: None,
            cancel: CancellationToken::new(),
            limits,
            begun: Arc::default(),
        }
    }

    /// The lease as the store wants to see it.
    pub(crate) fn lease(&self, now: Instant) -> Lease {
        let age = now.saturating_duration_since(self.confirmed);
        let recent = age.as_millis() < u128::from(LeaseProof::MEMORY_MS);
        let held = LeaseProof { token: self.id.token, recent };
        Lease { id: self.id.task.clone(), ask: Arc::clone(&self.job.ask), held }
    }

    /// The record and those that joined it.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        std::iter::once(&self.job).chain(&self.joined)
    }

    /// The slots that it takes.
    pub(crate) fn lane(&self) -> Lane {
        if self.deliveries >= Claimer::SUSPECT { Lane::Quarantine } else { self.job.lane() }
    }

    pub(crate) fn is_revoked(&self) -> bool {
        matches!(self.stop, Some(StopReason::Revoked { .. }))
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        matches!(self.stop, Some(StopReason::TimedOut | StopReason::Revoked { timed_out: true }))
    }

    /// Asks the task to end.
    pub(crate) fn ask_to_end(&mut self, reason: StopReason) {
        self.stop = Some(match reason {
            StopReason::Revoked { .. } => StopReason::Revoked { timed_out: self.has_timed_out() },
            StopReason::TimedOut if self.is_revoked() => StopReason::Revoked { timed_out: true },
            StopReason::LeaseLost => self.stop.unwrap_or(reason),
            StopReason::TimedOut => reason,
        });
        self.cancel.cancel();
    }

    /// When this much of its time is over, if that is later than now: a blocking task's time begins with its first line.
    pub(crate) fn ends_later(&self, after: Duration, now: Instant) -> Option<Instant> {
        let begun = (self.job.lane() == Lane::Blocking).then(|| self.begun.get().copied().unwrap_or(now))?;
        Some(begun + after).filter(|&at| at > now)
    }

    /// Asks the task to end, and drops it where that is possible.
    pub(crate) fn cut_off(&self) {
        self.cancel.cancel();
        if let Phase::Running(Running { abort: Some(abort), .. }) = &self.phase {
            abort.abort();
        }
    }
}

impl Phase {
    /// When it started, if it did.
    pub(crate) fn started(&self) -> Option<Instant> {
        match self {
            Self::Admission | Self::Ready | Self::GivenBack => None,
            Self::Running(running) => Some(running.since),
            Self::Ending { started } => *started,
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self, Self::Ending { .. } | Self::GivenBack)
    }
}
