//! What comes back from the network, and to whom it is given.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    claims::Claimed,
    control::Control,
    execute::Finish,
    heartbeat::Beaten,
    job::{Job, Position},
    lease::Extensions,
    levels::Looked,
    limits::Limited,
    orders::Heard,
    revoke::Order,
    settle::{Ending, Settling},
};
use crate::{
    broker::Event,
    core::{lifecycle::Token, names::TaskId},
    store::StoreError,
};

/// How long a call waits after an error before it is made again.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// A call that has returned.
pub(super) enum Step {
    /// A subscription told something.
    Polled { queue: usize, events: Vec<Event> },
    /// The worker has been full for a while.
    StillFull { queue: usize },
    /// The topics that were missing were looked for.
    Looked(Looked),
    /// The control topic told something, or is not there.
    OrdersHeard(Heard),
    /// A batch of claims was answered, or not.
    Claimed(Claimed),
    /// Limits were asked, and answered or not.
    Limited(Limited),
    /// Places of ended runs were given up, or not.
    Vacated,
    /// Places of runs were kept, or not.
    Kept,
    /// A batch of ends was answered, or not.
    Settled(Settling),
    /// Leases were extended, or not.
    Extended(Extensions),
    /// Publications that an end waited for are acknowledged: these offsets are done.
    Published { at: Vec<Position> },
    /// Tasks were given back, or not; these are asked for again.
    Released { again: Vec<Arc<Job>>, error: Option<StoreError> },
    /// The control channel told something.
    Ordered(Order),
    /// Unique keys were confirmed, or not.
    Confirmed,
    /// A batch of reports was passed on, or not.
    ProgressPassedOn,
    /// A heartbeat was sent, or not.
    Beaten(Beaten),
    /// The worker stops, and produces no more ticks.
    Ticked,
    /// The servers were looked at, once, at the start.
    Inspected,
}

/// A call under way.
pub(super) type Call = BoxFuture<'static, Step>;

/// Something that waits for its time.
pub(super) enum Due {
    /// Ask again: somebody's lease may be over.
    Ask(Arc<Job>),
    /// A blocking task's timeout is over.
    Overrun(TaskId, Token),
    /// A revoked task has had its grace.
    Drop(TaskId, Token),
    /// Try to record an end again that the store refused.
    Record(Ending),
}

impl Control {
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Polled { queue, events } => self.polled(queue, events),
            Step::StillFull { queue } => self.still_full(queue),
            Step::Looked(looked) => self.looked(looked),
            Step::OrdersHeard(heard) => self.orders_heard(heard),
            Step::Claimed(claimed) => self.claimed(claimed),
            Step::Limited(limited) => self.limited(limited),
            Step::Vacated => self.vacated(),
            Step::Kept => self.kept(),
            Step::Settled(settling) => self.settled(settling),
            Step::Extended(extensions) => self.extended(extensions),
            Step::Published { at } => self.published(&at),
            Step::Released { again, error } => self.released(again, error),
            Step::Ordered(order) => self.ordered(order),
            Step::ProgressPassedOn => self.pass_progress_on(),
            Step::Beaten(beaten) => self.beaten(beaten),
            Step::Ticked => self.ticking = false,
            Step::Inspected | Step::Confirmed => {}
        }
    }

    pub(super) fn due(&mut self, due: Due) {
        match due {
            Due::Ask(_) if self.draining => {}
            Due::Ask(job) => self.ask(job),
            Due::Overrun(id, token) => self.overrun(&id, token),
            Due::Drop(id, token) => self.drop_run(&id, token),
            Due::Record(ending) => self.endings.push_back(ending),
        }
    }

    pub(super) fn finished(&mut self, finishes: &mut Vec<Finish>) {
        for finish in finishes.drain(..) {
            self.report(finish);
        }
    }
}
