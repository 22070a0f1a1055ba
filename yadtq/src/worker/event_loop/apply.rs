//! Applies the effects of the parts.

use std::sync::Arc;

use tracing::warn;

use super::EventLoop;
use crate::{
    broker::Subscription,
    core::text::Escaped,
    worker::{
        calls::{self, Answer, Kind},
        effect::{Effect, Effects, Ended, Grant, Now},
        job::{Position, SourceId, TopicId},
        runs::run::Phase,
        start::Admission,
    },
};

impl EventLoop {
    /// Applies all effects, and those that follow from them.
    pub(super) fn apply_effects(&mut self, now: Now) {
        while let Some(effect) = self.effects.pop_front() {
            self.apply(effect, now);
        }
    }

    fn apply(&mut self, effect: Effect, now: Now) {
        let Self { intake, start, runs, finisher, effects, .. } = self;
        match effect {
            Effect::Complete(at) if at.is_foreign() => start.offers.received.completed(at),
            Effect::Complete(at) => intake.complete(at, effects),
            Effect::Ask(job) if job.at.is_foreign() => start.offers.received.forget(job.at),
            Effect::Ask(job) => intake.ask(job),
            Effect::AskAfter(job, _) if job.at.is_foreign() => start.offers.received.declined(job.at),
            Effect::AskAfter(job, delay) => start.claims.ask_after(job, delay, now.at),
            Effect::WaitInPlace(job, _) if job.at.is_foreign() => start.offers.received.forget(job.at),
            Effect::WaitInPlace(job, left) => start.claims.hold(intake.renewed(*job), left, now.at),
            Effect::AskLimits(id) => {
                if let Some(run) = runs.table.get(&id) {
                    start.limits.ask(id, &run.job, now.at);
                }
            }
            Effect::Grant(grant) => self.granted(grant, now),
            Effect::Hold { job, .. } if job.at.is_foreign() => start.offers.received.forget(job.at),
            Effect::Hold { job, left, is_ours } => {
                let is_open = |at: Position| at.is_foreign() || intake.owns(at);
                // It was carried meanwhile: its copy says the same.
                if !is_open(job.at) {
                    return;
                }
                let joined = if is_ours { runs.join(job, is_open) } else { Err(job) };
                if let Err(job) = joined {
                    start.claims.hold(job, left, now.at);
                }
            }
            Effect::GiveBack { source, partitions } => {
                start.offers.unknown.revoked(source, &partitions);
                runs.give_back_partitions(source, &partitions, effects);
            }
            Effect::FillSlots => {
                if start.controls.has_paused() {
                    runs.give_back_ready(|run| start.controls.withhold(&run.job), effects);
                }
                let coming = |queue, lane| start.claims.coming(intake, queue, lane);
                runs.fill_slots(coming, now, effects);
            }
            Effect::Start(id) => {
                if let Some(run) = runs.table.get(&id) {
                    let abort = self.executor.start(run, now.at);
                    runs.started(&id, abort);
                }
            }
            Effect::End(id, ended) => {
                if let Some(run) = runs.table.get_mut(&id).filter(|run| !run.phase.is_ending()) {
                    finisher.run_ended(run, ended, now.ms);
                }
            }
            Effect::PublishNext(next) => {
                let publication = finisher.next_record(next, now.ms);
                self.publish(publication);
            }
            Effect::Carry(job) => {
                let carry = calls::carry(Arc::clone(&self.store), Arc::clone(&self.broker), job);
                self.calls.start(Kind::Carry, carry);
            }
            Effect::DeadLetter(dead) => {
                let publication = finisher.dead_letter(dead);
                self.publish(publication);
            }
            Effect::Unreadable { at, topic, record, reason } => {
                let publication = finisher.unreadable(at, &topic, &record, reason);
                self.publish(publication);
            }
            Effect::Assign(topic, partitions) => self.subscription(topic).assign(&partitions),
            Effect::Revoke(topic, partitions) => {
                self.subscription(topic).lose(&partitions);
                self.revoked(topic, partitions);
            }
            Effect::Forget(topic) => self.subscription(topic).forget(),
            Effect::Release(topic, partitions) => {
                let read: Vec<i32> = partitions.keys().copied().collect();
                self.store(topic, &read);
                self.subscription(topic).revoke(&read);
                self.revoked(topic, read);
                let subscription = Arc::clone(self.subscription(topic));
                self.calls.start(Kind::Release, calls::release(subscription, topic, partitions));
            }
            Effect::Poll(source) => self.poll(source),
            Effect::Pause(source, partition) => self.subscription(source).pause(partition),
            Effect::Resume(source, partition) => self.subscription(source).resume(partition),
            Effect::StoreOffset(source, partition, next, metadata) => {
                self.subscription(source).store(partition, next, &metadata);
            }
        }
    }

    fn granted(&mut self, grant: Grant, now: Now) {
        let admission = match self.is_draining() {
            true => Admission::Ends(Ended::GivenBack(Ended::GIVEN_BACK_DELAY)),
            false => self.start.admit(&grant.job, grant.deliveries, &self.plan, now.ms),
        };
        let phase = if matches!(admission, Admission::Ready) { Phase::Ready } else { Phase::Admission };
        let job = Arc::clone(&grant.job);
        let id = self.runs.granted(grant, phase, now.at);
        match admission {
            Admission::Ready => {}
            Admission::Limited => self.start.limits.ask(id, &job, now.at),
            Admission::Ends(Ended::UnknownTask) => {
                // Every task of that name is unknown.
                if self.start.offers.unknown.is_news(&job.ask.task, now.at) {
                    warn!(event = "task_unknown", worker = %self.id, task_id = %id.task.shown(), task = %Escaped(&job.ask.task),
                        queue = %job.ask.queue, "no task of that name is registered here, and no other worker took it: it waits");
                }
                self.effects.push_back(Effect::End(id, Ended::UnknownTask));
            }
            Admission::Ends(ended) => self.effects.push_back(Effect::End(id, ended)),
        }
    }

    fn poll(&mut self, source: SourceId) {
        let (subscription, stop) = (Arc::clone(self.subscription(source)), self.stop_polling.clone());
        self.calls.start(Kind::Poll, async move {
            let events = stop.run_until_cancelled(subscription.next()).await.unwrap_or_default();
            Answer::Polled { source, events }
        });
    }

    /// Stores what has ended in partitions that are about to be given.
    pub(super) fn store(&mut self, topic: TopicId, partitions: &[i32]) {
        let Some(source) = self.intake.source_of(topic) else { return };
        let (mut stored, now) = (Effects::new(), self.now());
        self.intake.store(source, partitions, &mut stored);
        stored.into_iter().for_each(|effect| self.apply(effect, now));
    }

    fn revoked(&mut self, topic: TopicId, partitions: Vec<i32>) {
        // A source that is full is not polled, and would report it late.
        if let Some(source) = self.intake.source_of(topic) {
            self.intake.revoked(source, partitions, &mut self.effects);
        }
    }

    pub(super) fn subscription(&self, topic: impl Into<TopicId>) -> &Arc<dyn Subscription> {
        &self.subscriptions[topic.into().index()]
    }
}
