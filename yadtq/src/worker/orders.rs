//! Follows the orders of operators, in the control topic: paused and purged queues, disabled tasks.
//!
//! ```text
//!  control topic ──► Orders ──► sources: a paused one gives no jobs, a purged one gives up what is below its mark
//!                         └──► granted tasks: of a purged queue end as revoked, of a disabled name wait or fail
//! ```
//! The topic is the truth. It is read to its end before the first claim, so that a paused queue stays paused over restarts,
//! and then followed. Where there is none nobody has given an order yet, and it is looked for every half second.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::{
    control::Control,
    execute::EXPIRED,
    job::{Job, Run},
    levels::Rank,
    step::Step,
};
use crate::{
    broker::{BrokerError, Event, Incoming, Reader},
    core::{
        lifecycle::Token,
        orders::{Disabled, Orders, look_again_ms},
    },
    wire::{
        control::{self, PARTITION},
        failure::{ErrorKind, Failure},
    },
};

/// How often a missing topic is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How long the first reading may take before it is complained of.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the error of a purged task says.
const PURGED: &str = "its queue was purged";

/// What this worker was told.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) orders: Arc<Orders>,
    /// All that was there at the start is known.
    pub(super) is_loaded: bool,
}

/// What the control topic told.
pub(super) enum Heard {
    /// There is none.
    Nothing,
    /// It cannot be read.
    Unknown(BrokerError),
    /// Its next events, and where more come from.
    Events(Box<dyn Reader>, Vec<Event>),
}

impl Control {
    /// Reads the control topic, or looks for it after a while.
    pub(super) fn follow_orders(&mut self, after: Duration) {
        let (broker, worker) = (Arc::clone(&self.broker), Arc::clone(&self.id));
        let topic: Arc<str> = self.client.config().namespace.control_topic().into();
        self.calls.push(Box::pin(async move {
            sleep(after).await;
            let reader = match broker.exist(std::slice::from_ref(&topic)).await {
                Ok(found) if found == [true] => broker.read(&topic, &[(PARTITION, 0)]),
                Ok(_) => return Step::OrdersHeard(Heard::Nothing),
                Err(error) => Err(error),
            };
            let mut reader = match reader {
                Ok(reader) => reader,
                Err(error) => return Step::OrdersHeard(Heard::Unknown(error)),
            };
            loop {
                match timeout(PATIENCE, reader.next()).await {
                    Ok(events) => return Step::OrdersHeard(Heard::Events(reader, events)),
                    Err(_) => warn!(event = "orders_awaited", %worker, %topic,
                        "kafka does not give out what operators have ordered; no task is taken before that is known"),
                }
            }
        }));
    }

    pub(super) fn orders_heard(&mut self, heard: Heard) {
        if self.draining {
            return;
        }
        match heard {
            Heard::Nothing => {
                self.orders_loaded();
                self.follow_orders(LOOK);
            }
            Heard::Unknown(error) => {
                debug!(event = "orders_unknown", worker = %self.id, %error, "trying again");
                self.follow_orders(LOOK);
            }
            Heard::Events(mut reader, events) => {
                let mut has_ended = false;
                for event in events {
                    match event {
                        Event::Records(records) => records.iter().for_each(|record| self.take_order(record)),
                        Event::Ended(_) => has_ended = true,
                        Event::Assigned(_) | Event::Revoked(_) => {}
                    }
                }
                if has_ended {
                    self.orders_loaded();
                }
                self.obey();
                self.calls.push(Box::pin(async move {
                    let events = reader.next().await;
                    Step::OrdersHeard(Heard::Events(reader, events))
                }));
            }
        }
    }

    fn take_order(&mut self, record: &Incoming) {
        let Some(order) = control::read(record.key.as_deref().unwrap_or_default(), &record.value) else {
            return error!(event = "order_unreadable", worker = %self.id, offset = record.offset,
                "an order that this version does not know; it is not followed");
        };
        if self.standing.is_loaded {
            info!(event = "order_taken", worker = %self.id, order = %String::from_utf8_lossy(&record.value),
                "an operator's order is followed from now on");
        }
        Arc::make_mut(&mut self.standing.orders).take(order);
    }

    fn orders_loaded(&mut self) {
        if std::mem::replace(&mut self.standing.is_loaded, true) {
            return;
        }
        let orders = &self.standing.orders;
        info!(event = "orders_loaded", worker = %self.id, paused = ?orders.paused().map(|(queue, _)| queue).collect::<Vec<_>>(),
            disabled = ?orders.all_disabled().map(|(task, ..)| task).collect::<Vec<_>>(), "orders of operators are known");
    }

    /// Applies what holds to all that has not started.
    fn obey(&mut self) {
        for source in &mut self.sources {
            let on_hold = self.standing.orders.is_paused(&source.queue);
            let mark = self.standing.orders.mark(&source.queue, source.priority).cloned();
            source.obey(on_hold, mark);
        }
        self.give_back_withheld();
        // A slot may have been kept for what is on hold now.
        self.start_granted();
    }

    /// Gives back what was asked for before its queue was paused.
    pub(super) fn give_back_paused(&mut self) {
        if self.standing.orders.paused().next().is_some() {
            self.give_back_withheld();
        }
    }

    /// Gives granted tasks back that must not start any more.
    fn give_back_withheld(&mut self) {
        let orders = Arc::clone(&self.standing.orders);
        self.give_back_waiting(|run: &Run| run.job.is_withheld(&orders));
    }

    /// Whether an operator has decided what becomes of a task that was granted.
    pub(super) fn is_overruled(&mut self, job: &Job, token: Token) -> bool {
        let id = &job.envelope.id;
        if job.is_purged(&self.standing.orders) {
            self.end_revoked(id.clone(), token, ErrorKind::Revoked, PURGED);
            return true;
        }
        let has_expired = job.envelope.expires.is_some_and(|at| at <= self.now_ms());
        match self.standing.orders.disabled(&job.ask.task) {
            None => return false,
            Some(_) if has_expired => self.end_revoked(id.clone(), token, ErrorKind::Expired, EXPIRED),
            Some((Disabled::Wait, since)) => self.park(id.clone(), token, look_again_ms(since, self.now_ms())),
            Some((Disabled::DeadLetter, _)) => {
                let message = format!("an operator has disabled `{}`", job.ask.task);
                self.fail(id.clone(), token, Failure::new(ErrorKind::Disabled, message, job.ask.attempt));
            }
        }
        true
    }
}

impl Job {
    /// Whether it must not start, or not now.
    pub(super) fn is_withheld(&self, orders: &Orders) -> bool {
        let ask = &self.ask;
        orders.is_paused(&ask.queue) || orders.disabled(&ask.task).is_some() || self.is_purged(orders)
    }

    fn is_purged(&self, orders: &Orders) -> bool {
        let mark = orders.mark(&self.ask.queue, Rank::of(self.at.queue).priority);
        mark.is_some_and(|mark| mark.covers(self.at.partition, self.at.offset, self.record.timestamp_ms))
    }
}
