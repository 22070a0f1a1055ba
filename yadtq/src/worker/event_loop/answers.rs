//! Gives the answers of calls to the parts that made them.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::EventLoop;
use crate::{
    broker::{BrokerError, Event, TopicState},
    core::lifecycle::{Claim, Finished},
    store::{Notice, StoreError},
    wire::control::CONTROL_PARTITION,
    worker::{
        calls::{self, Answer, Kind},
        effect::Effect,
        job::Job,
        start::Start,
    },
};

/// The time between two requests about the worker's topics: the first high or low task of a queue waits for as long, and new
/// partitions do.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(1_500);
/// The wait after a request about the worker's topics has failed.
const LOOK_UP_RETRY_DELAY: Duration = Duration::from_millis(250);

impl EventLoop {
    /// Gives an answer to the part that it is for.
    pub(super) fn answered(&mut self, answer: Answer) {
        let time = self.now();
        let (now, is_draining) = (time.at, self.is_draining());
        let Self { calls, intake, start, runs, effects, .. } = self;
        match answer {
            Answer::Polled { source, events } => intake.polled(source, events, now, effects),
            Answer::LookedUp { sent, found } => self.looked_up(sent, found, now),
            // What it has given on its way out is not taken again.
            Answer::Owned(_) if is_draining => {}
            Answer::Owned(answers) => self.is_gone |= !self.ownership.answered(answers, now, effects),
            Answer::Created => calls.delay(Kind::LookUp, now, Duration::ZERO),
            Answer::Released(topic, partitions) => self.ownership.released(topic, &partitions, now),
            Answer::ControlsRead(events) => self.controls_read(events),
            Answer::Noticed { channel, notice } => {
                calls.start(Kind::Listen, calls::until(self.listening.clone(), calls::listen_on(channel)));
                match notice {
                    Notice::OwnAgain => self.ownership.woken(now),
                    Notice::Revoke(tasks) => runs.revoke_tasks(&tasks, now, effects),
                    Notice::SlotsFree => start.offers.made.search_again(now),
                    Notice::Offer(offer) => self.offered(offer, now),
                    Notice::Declined(places) => self.declined(places, now),
                    Notice::NoSlot(places) => self.ready_again(places),
                    Notice::Completed(places) => self.completed(places),
                    Notice::FreeAgain(free) => self.offer_next(free, now),
                    Notice::Missed => {
                        self.ownership.woken(now);
                        self.send_extensions(self.runs.all_leases(now));
                    }
                    Notice::Replies(_) | Notice::Ended(_) | Notice::Progress(_) => {}
                }
            }
            Answer::Claimed { jobs, sent, answers } => {
                calls.answered(Kind::Claim, answers.is_ok(), now);
                match answers {
                    Ok(answers) => {
                        let is_revoked = |(_, answer): &(&Arc<Job>, &_)| matches!(answer, Ok(Claim::Revoked));
                        let revoked = jobs.iter().zip(&answers).filter(is_revoked);
                        revoked.for_each(|(job, _)| start.controls.has_ended_revoked(&job.envelope.id));
                        let keys = start.claims.answered(jobs, sent, answers, effects);
                        if !keys.is_empty() {
                            let (store, id) = (Arc::clone(&self.store), Arc::clone(&self.id));
                            calls.start(Kind::ConfirmKeys, calls::confirm_keys(store, id, keys));
                        }
                    }
                    Err(error) => start.claims.unanswered(jobs, &error, intake, &mut start.offers),
                }
            }
            Answer::LimitsAsked { questions, sent, answers } => {
                calls.answered(Kind::AskLimits, answers.is_ok(), now);
                let Start { limits, controls, .. } = start;
                match answers {
                    Ok(answers) => {
                        let answers = questions.into_iter().zip(answers).collect();
                        let withheld = |job: &_| is_draining || controls.withhold(job);
                        limits.answered(answers, sent, runs, withheld, time, effects);
                    }
                    Err(error) => limits.unanswered(questions, &error, is_draining, effects),
                }
            }
            Answer::Extended { leases, sent, answers } => runs.extended(&leases, sent, answers, now, effects),
            Answer::Finished { ends, answers } => {
                calls.answered(Kind::Finish, answers.is_ok(), now);
                let completer = &mut self.finisher.completer;
                if let Ok(answers) = &answers {
                    let recorded =
                        ends.iter().zip(answers).filter(|(_, answer)| matches!(answer, Ok(Finished::Recorded)));
                    let revoked = recorded.filter_map(|(end, _)| end.revoked());
                    revoked.for_each(|id| start.controls.has_ended_revoked(id));
                }
                match answers {
                    Ok(answers) => completer.answered(ends, answers, &mut runs.table, time, effects),
                    Err(error) => completer.unanswered(ends, &error, &mut runs.table, effects),
                }
            }
            Answer::Published { at, dead_letter } => {
                if let Some((task, seq)) = dead_letter {
                    self.finisher.dead_lettered(task, seq);
                }
                effects.extend(at.into_iter().map(Effect::Complete));
            }
            Answer::DeadLettersNoted { noted, answers } => {
                let answers = answers.unwrap_or_else(|error| noted.iter().map(|_| Err(error.clone())).collect());
                let is_open =
                    |answer: &Result<bool, StoreError>| !matches!(answer, Ok(_) | Err(StoreError::WrongType { .. }));
                calls.answered(Kind::NoteDeadLetters, !answers.iter().any(is_open), now);
                let open = noted.into_iter().zip(answers).filter(|(_, answer)| is_open(answer));
                open.for_each(|((task, seq), _)| self.finisher.dead_lettered(task, seq));
            }
            Answer::Carried { job, is_published } => {
                if is_published {
                    runs.carried(&job);
                    // Its copy will say what became of it.
                    start.offers.made.returned(job.at.into());
                }
                intake.carried(&job, is_published, now, &|job| start.offers.unknown.contains(job), effects);
            }
            Answer::Beaten { sent, answer } => {
                let counts = self.counts();
                if self.heartbeat.answered(&answer, &counts, now) {
                    self.listen();
                }
                if let Ok(beaten) = answer {
                    self.suspend.compare(beaten.now_us, beaten.is_new);
                    self.is_gone |= beaten.is_gone;
                    if !beaten.dead.is_empty() {
                        self.start.claims.ask_held(&mut self.intake);
                        self.offers_lost(&beaten.dead, now);
                    }
                    self.ownership.beaten(sent, beaten.dead, !beaten.lost.is_empty(), now);
                }
            }
            Answer::Announced(answer) => {
                calls.answered(Kind::Announce, answer.is_ok(), now);
                if answer.is_err() {
                    start.offers.idle.used();
                }
            }
            Answer::SlotsFound { wanted, answers } => self.slots_found(wanted, answers, now),
            Answer::OffersSent { messages, answers } => self.offers_sent(messages, answers),
            Answer::LookedAtOffered { jobs, answers } => self.looked_at(jobs, answers, now),
            Answer::Forgotten { refused } => {
                calls.answered(Kind::ForgetRevocations, refused.is_empty(), now);
                start.controls.put_back_obsolete(refused);
            }
            Answer::Done => {}
        }
    }

    fn looked_up(&mut self, sent: Instant, found: Result<Vec<Option<TopicState>>, BrokerError>, now: Instant) {
        self.calls.delay(Kind::LookUp, now, LOOK_UP_INTERVAL.min(self.plan.options.lease / 4));
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                self.calls.delay(Kind::LookUp, now, LOOK_UP_RETRY_DELAY);
                match error {
                    BrokerError::Refused(_) => {
                        warn!(event = "topics_not_looked_up", worker = %self.id, %error, "trying again")
                    }
                    _ => debug!(event = "topics_not_looked_up", worker = %self.id, %error, "trying again"),
                }
                return;
            }
        };
        if self.is_draining() {
            return;
        }
        self.create_missing(&found, now);
        // The last one is the control topic.
        match found.pop().flatten() {
            Some(_) if !self.is_reading_controls => {
                self.is_reading_controls = true;
                self.controls.assign(&[CONTROL_PARTITION]);
                let read = calls::read_controls(Arc::clone(&self.controls), Arc::clone(&self.id));
                self.calls.start(Kind::ReadControls, read);
            }
            Some(_) => {}
            None => self.start.controls.loaded(),
        }
        for (source, _) in self.intake.source_ids().zip(&found).filter(|(_, state)| state.is_some()) {
            self.intake.joined(source);
        }
        self.ownership.looked_up(found, sent, now, &mut self.effects);
    }

    fn controls_read(&mut self, events: Vec<Event>) {
        if self.is_draining() {
            return;
        }
        let now_ms = self.now().ms;
        self.start.controls.read(events, now_ms);
        let (controls, id) = (Arc::clone(&self.controls), Arc::clone(&self.id));
        match self.start.controls.is_loaded() {
            true => self.calls.start(Kind::ReadControls, calls::read_on(controls)),
            false => self.calls.start(Kind::ReadControls, calls::read_controls(controls, id)),
        }
        let controls = self.start.controls.current();
        self.intake.apply(controls);
        self.runs.give_back_ready(|run| self.start.controls.withhold(&run.job), &mut self.effects);
        // A slot may have been kept for what is on hold now.
        self.effects.push_back(Effect::FillSlots);
    }
}
