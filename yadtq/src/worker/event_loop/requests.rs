//! Makes the calls that are due.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::EventLoop;
use crate::{
    broker::TopicState,
    clock::millis,
    core::{lifecycle::Claimer, limits::PermitTerms},
    store::Lease,
    worker::{
        background::heartbeat::Counts,
        calls::{self, Answer, Kind},
        finish::publisher::Publication,
        intake::ownership::{OwnCall, Ownership},
        job::Lane,
        runs::progress,
        start::{Start, limits::Limits},
    },
};

impl EventLoop {
    /// Makes the calls that are due, after all effects so far.
    pub(super) fn start_calls(&mut self) {
        let time = self.now();
        let now = time.at;
        self.runs.due(now);
        let is_connected = self.store.connected_for().is_some();
        self.runs.give_back_waiting(is_connected, now, &mut self.effects);
        self.start.claims.due(now, &mut self.intake);
        self.finisher.completer.due(now);
        let unknown = &self.start.offers.unknown;
        self.intake.due(now, &|job| unknown.contains(job), &mut self.effects);
        if self.ownership.may_read(is_connected, now) {
            self.intake.poll(&mut self.effects);
        }
        self.apply_effects(time);
        if !self.is_draining() {
            self.claim(now);
            self.look_up(now);
            self.own(now);
        }
        self.forget_revocations(now);
        self.exchange_offers(now);
        self.beat(now);
        if self.runs.take_extension_due(now) {
            self.send_extensions(self.runs.leases_due(now));
        }
        self.ask_limits(now);
        self.return_permits(now);
        self.finish(now);
        self.note_dead_letters(now);
        if self.calls.may_start(Kind::Progress, now) {
            let (id, store) = (Arc::clone(&self.id), Arc::clone(&self.store));
            let reports = Arc::clone(&self.executor.progress);
            self.calls.start(Kind::Progress, async move {
                progress::pass_on(id, reports, store).await;
                Answer::Done
            });
        }
    }

    fn claim(&mut self, now: Instant) {
        if !self.calls.may_start(Kind::Claim, now) || !self.start.controls.is_loaded() {
            return;
        }
        let Start { claims, limits, offers, .. } = &mut self.start;
        let jobs = claims.next_batch(&mut self.intake, &mut self.runs, limits, offers, now);
        if jobs.is_empty() {
            return;
        }
        let by = Claimer {
            worker: Arc::clone(&self.id),
            lease_ms: millis(self.plan.options.lease),
            // After an outage the owners of leases extend first.
            take_over: self.has_been_connected(),
            quarantine: u32::from(self.runs.slots.is_free(Lane::Quarantine)),
            max_deliveries: self.plan.options.max_deliveries,
        };
        self.calls.start(Kind::Claim, calls::claim(Arc::clone(&self.store), by, jobs));
    }

    /// Whether the connection to the store has been up for a lease.
    fn has_been_connected(&self) -> bool {
        self.store.connected_for().is_some_and(|up| up >= self.plan.options.lease)
    }

    fn ask_limits(&mut self, now: Instant) {
        if self.calls.may_start(Kind::AskLimits, now) {
            let questions = self.start.limits.next_batch(&self.runs.table);
            if !questions.is_empty() {
                let lease_ms = millis(self.plan.options.lease);
                // After an outage runs keep their permits first.
                let terms = PermitTerms { lease_ms, take_over: self.has_been_connected() };
                self.calls.start(Kind::AskLimits, calls::ask_limits(Arc::clone(&self.store), terms, questions));
            }
        }
    }

    fn forget_revocations(&mut self, now: Instant) {
        if self.calls.may_start(Kind::ForgetRevocations, now) {
            let ids = self.start.controls.take_obsolete();
            if !ids.is_empty() {
                let (broker, topic) = (Arc::clone(&self.broker), Arc::clone(&self.control_topic));
                self.calls.start(Kind::ForgetRevocations, calls::forget_revocations(broker, topic, ids));
            }
        }
    }

    fn return_permits(&mut self, now: Instant) {
        if self.calls.may_start(Kind::ReturnPermits, now) {
            let permits = self.start.limits.take_returned();
            if !permits.is_empty() {
                self.calls.start(Kind::ReturnPermits, calls::return_permits(Arc::clone(&self.store), permits));
            }
        }
    }

    fn finish(&mut self, now: Instant) {
        if self.calls.may_start(Kind::Finish, now)
            && let Some((ends, finishes)) = self.finisher.completer.next_batch(&self.runs.table, now)
        {
            self.calls.start(Kind::Finish, calls::finish(Arc::clone(&self.store), ends, finishes));
        }
    }

    fn note_dead_letters(&mut self, now: Instant) {
        if self.calls.may_start(Kind::NoteDeadLetters, now) && !self.finisher.has_noted_all() {
            let letters = self.finisher.take_dead_lettered();
            self.calls.start(Kind::NoteDeadLetters, calls::note_dead_letters(Arc::clone(&self.store), letters));
        }
    }

    /// Looks up the topics of this worker: whether they exist, and how many partitions they have.
    fn look_up(&mut self, now: Instant) {
        if self.calls.may_start(Kind::LookUp, now) {
            let topics: Vec<_> = self.ownership.names().chain([&self.control_topic]).cloned().collect();
            self.calls.start(Kind::LookUp, calls::look_up(Arc::clone(&self.consumer), topics));
        }
    }

    /// Creates the topics that are missing, but for those of priorities that nobody has used, and the control topic.
    pub(super) fn create_missing(&mut self, found: &[Option<TopicState>], now: Instant) {
        let is_normal = self.intake.source_ids().map(|source| source.priority.is_normal());
        let needed = is_normal.chain(self.plan.options.scheduler.then_some(true));
        let topics = self.ownership.names().zip(needed).zip(found);
        let missing: Vec<_> = topics.filter(|((_, needed), state)| *needed && state.is_none()).collect();
        let missing: Vec<_> = missing.into_iter().map(|((topic, _), _)| Arc::clone(topic)).collect();
        if !missing.is_empty() && self.calls.may_start(Kind::Create, now) {
            self.calls.start(Kind::Create, calls::create(Arc::clone(&self.broker), missing));
        }
    }

    fn own(&mut self, now: Instant) {
        if let Some(OwnCall { by, requests }) = self.ownership.call(self.store.connected_for().is_some(), now) {
            self.calls.start(Kind::Own, calls::own(Arc::clone(&self.store), by, requests, self.answer_timeout()));
        }
    }

    /// When ownership is asked for again.
    pub(super) fn ownership_due(&self) -> Option<Instant> {
        if self.is_draining() { None } else { self.ownership.next_due() }
    }

    /// How long a call that keeps a lease alive may take: then it can be sent twice more within the lease.
    fn answer_timeout(&self) -> Duration {
        self.plan.options.lease / 6
    }

    /// Subscribes to the channel of this worker.
    pub(super) fn listen(&mut self) {
        self.listening.cancel();
        self.listening = CancellationToken::new();
        let listen = calls::listen(Arc::clone(&self.store), Arc::clone(&self.id));
        self.calls.start(Kind::Listen, calls::until(self.listening.clone(), listen));
    }

    pub(super) fn publish(&mut self, publication: Publication) {
        self.calls.start(Kind::Publish, calls::publish(Arc::clone(&self.too_large), publication));
    }

    pub(super) fn extend(&mut self, now: Instant) {
        self.send_extensions(self.runs.leases_due(now));
        let held = Limits::permits_held(&self.runs.table);
        if self.calls.count(Kind::KeepPermits) == 0 && !held.is_empty() {
            self.calls.start(
                Kind::KeepPermits,
                calls::keep_permits(
                    Arc::clone(&self.store),
                    millis(self.plan.options.lease),
                    held,
                    self.answer_timeout(),
                ),
            );
        }
    }

    pub(super) fn send_extensions(&mut self, leases: Vec<Lease>) {
        if self.calls.count(Kind::Extend) > 0 || leases.is_empty() {
            return;
        }
        if self.store.connected_for().is_none() {
            self.runs.extend_again(Instant::now());
        } else {
            let (store, id, lease) = (Arc::clone(&self.store), Arc::clone(&self.id), self.plan.options.lease);
            self.calls.start(Kind::Extend, calls::extend(store, id, millis(lease), leases, self.answer_timeout()));
        }
    }

    fn beat(&mut self, now: Instant) {
        if self.calls.count(Kind::Beat) == 0 && now >= self.heartbeat.due {
            if self.store.connected_for().is_none() {
                return self.heartbeat.disconnected(now);
            }
            let info = self.heartbeat.info(&self.counts(), self.runs.table.iter());
            let lease = self.plan.options.lease;
            self.heartbeat.due = now + Ownership::beat_interval(lease);
            let answered_ms = self.heartbeat.answered_ms;
            let beat = calls::beat(Arc::clone(&self.store), info, answered_ms, millis(lease), self.answer_timeout());
            self.calls.start(Kind::Beat, beat);
        }
    }

    /// When the next heartbeat is due.
    pub(super) fn heartbeat_due(&self) -> Option<Instant> {
        (self.calls.count(Kind::Beat) == 0).then_some(self.heartbeat.due)
    }

    pub(super) fn counts(&self) -> Counts {
        let completer = &self.finisher.completer;
        Counts {
            running: self.runs.table.len(),
            processed: completer.processed,
            failed: completer.failed,
            overrun: self.runs.overrun,
        }
    }
}
