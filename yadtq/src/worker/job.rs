//! A record on its way through the worker.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, time::delay_queue};

use super::limits::Seat;
use crate::{
    broker::Incoming,
    core::lifecycle::{Ask, Held, Token},
    store::Lease,
    task::{Body, Definition},
    wire::envelope::Envelope,
};

/// Where a record was read, and in which assignment of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Which source of the worker: a queue's topic of one priority.
    pub(super) queue: usize,
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) offset: i64,
    /// Of the record.
    pub(super) bytes: usize,
}

/// A readable record that has to end.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) at: Position,
    pub(super) record: Incoming,
    pub(super) envelope: Envelope,
    pub(super) ask: Arc<Ask>,
    /// `None`: no task of that name is registered here.
    pub(super) definition: Option<Definition>,
    pub(super) received: Instant,
}

/// Which slots a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Async,
    Blocking,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Async, Self::Blocking];
}

impl Job {
    /// Unknown tasks only pass through, so they take the cheaper slots.
    pub(super) fn lane(&self) -> Lane {
        match self.definition.as_ref().map(|definition| definition.body) {
            Some(Body::Blocking(_)) => Lane::Blocking,
            Some(Body::Async(_)) | None => Lane::Async,
        }
    }
}

/// A task that this worker holds the lease of.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) job: Arc<Job>,
    /// Records of the same task that came back while it runs: their offsets end with it.
    pub(super) joined: Vec<Arc<Job>>,
    pub(super) token: Token,
    pub(super) deliveries: u32,
    /// When the lease was last known to live.
    pub(super) confirmed: Instant,
    pub(super) granted: Instant,
    pub(super) started: Option<Instant>,
    pub(super) cancel: CancellationToken,
    pub(super) abort: Option<tokio::task::AbortHandle>,
    /// When it has to be asked to end, if it is a blocking task with a timeout.
    pub(super) timer: Option<delay_queue::Key>,
    /// It was asked to end as revoked; a success stays one.
    pub(super) revoking: bool,
    /// Its timeout is over: whatever it returns, it ends as timed out.
    pub(super) overrun: bool,
    /// When the limits of its starts let it in.
    pub(super) admitted: Option<Instant>,
    /// Its place among the tasks that run at once.
    pub(super) seat: Option<Seat>,
    /// Its place in line, if the limits make it wait.
    pub(super) limit_slot: Option<u64>,
}

impl Run {
    /// The lease as the store wants to see it.
    pub(super) fn lease(&self) -> Lease {
        let recent = self.confirmed.elapsed().as_millis() < u128::from(Held::MEMORY_MS);
        Lease {
            id: self.job.envelope.id.clone(),
            ask: Arc::clone(&self.job.ask),
            held: Held { token: self.token, recent },
        }
    }

    /// The record and those that joined it.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        std::iter::once(&self.job).chain(&self.joined)
    }
}
