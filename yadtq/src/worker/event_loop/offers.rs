//! Offers: announces free slots, looks for those of others, and exchanges messages with other workers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;

use super::EventLoop;
use crate::{
    core::{lifecycle::TaskState, names::WorkerId, text::Escaped},
    store::{Answers, WantedSlots},
    wire::offer::{FreeAgain, MAX_OFFER_BYTES, Offer, Place, WorkerMessage},
    worker::{
        calls::{self, Kind},
        effect::Effect,
        job::{Job, Lane},
        start::{Start, offers::fate::Fate},
    },
};

/// The most bytes of records that are offered to one worker after one search for slots.
const MAX_SEARCH_BYTES: usize = 4 * MAX_OFFER_BYTES;
/// The wait before a record is ready again that another worker has declined.
const DECLINED_DELAY: Duration = Duration::from_millis(100);

impl EventLoop {
    /// Makes the calls that are due for offers.
    pub(super) fn exchange_offers(&mut self, now: Instant) {
        self.start.offers.received.expire(now);
        self.answer_offers(now);
        if self.is_draining() {
            return self.withdraw_slots(now);
        }
        if !self.start.controls.is_loaded() {
            return;
        }
        let mut wanted = Vec::new();
        for lane in Lane::OF_RECORDS {
            let free = self.idle_slots(lane);
            self.start.offers.idle.observe(lane, free, now);
            if self.has_excess(lane) {
                wanted.push(lane);
            }
        }
        self.search_slots(&wanted, now);
        if self.calls.may_start(Kind::Announce, now) {
            let slots = self.start.offers.idle.due(now);
            if !slots.is_empty() {
                let call = calls::announce(Arc::clone(&self.store), Arc::clone(&self.id), slots);
                self.calls.start(Kind::Announce, call);
            }
        }
        self.look_at_offered(now);
    }

    /// A worker that drains takes no offers.
    fn withdraw_slots(&mut self, now: Instant) {
        if self.calls.may_start(Kind::Announce, now) {
            let slots = self.start.offers.idle.withdraw();
            if !slots.is_empty() {
                let call = calls::announce(Arc::clone(&self.store), Arc::clone(&self.id), slots);
                self.calls.start(Kind::Announce, call);
            }
        }
    }

    /// When [`exchange_offers`](Self::exchange_offers) has something to do although nothing happens.
    pub(super) fn offers_due(&self, now: Instant) -> Option<Instant> {
        if self.is_draining() || !self.start.controls.is_loaded() {
            return None;
        }
        let offers = &self.start.offers;
        let when_free = |kind, due: Option<Instant>| due.filter(|_| self.calls.may_start(kind, now));
        let due = [
            when_free(Kind::Announce, offers.idle.next_due()),
            when_free(Kind::SearchSlots, offers.made.next_search()),
            when_free(Kind::LookAtOffered, offers.made.next_look()),
            when_free(Kind::Claim, offers.unknown.next_due()),
            offers.received.next_expiry(),
        ];
        due.into_iter().flatten().min()
    }

    /// Slots of a lane for which this worker has nothing, not even on its way.
    fn free_slots(&self, lane: Lane) -> usize {
        let Start { claims, limits, offers, .. } = &self.start;
        let coming = claims.asking(lane) + limits.pending() + offers.received.waiting(lane);
        self.runs.slots.free(lane).saturating_sub(coming)
    }

    /// Slots of a lane for which this worker has no record at all, and no other worker was asked for some.
    fn idle_slots(&self, lane: Lane) -> usize {
        let reported = self.start.offers.received.reported(lane);
        if self.intake.has_ready(lane) { 0 } else { self.free_slots(lane).saturating_sub(reported) }
    }

    /// Whether records of a lane are ready for which there is no slot here.
    fn has_excess(&self, lane: Lane) -> bool {
        self.intake.has_ready(lane) && self.free_slots(lane) == 0
    }

    /// Looks for slots of others, for what is ready in these lanes and for tasks that this worker does not know.
    fn search_slots(&mut self, lanes: &[Lane], now: Instant) {
        let Self { calls, intake, start: Start { offers, controls, .. }, .. } = self;
        let has_excess = !lanes.is_empty() || offers.unknown.next_due().is_some();
        if !calls.may_start(Kind::SearchSlots, now) || !offers.made.may_search(has_excess, now) {
            return;
        }
        offers.declined.expire(now);
        let wanted = offers.wanted(intake, lanes, |job| !controls.withhold(job));
        if !wanted.is_empty() {
            let call = calls::search_slots(Arc::clone(&self.store), Arc::clone(&self.id), wanted);
            self.calls.start(Kind::SearchSlots, call);
        }
    }

    /// The answer to a search: offers a record for each slot that was found.
    pub(super) fn slots_found(
        &mut self, wanted: Vec<WantedSlots>, answers: Answers<Vec<(WorkerId, usize)>>, now: Instant,
    ) {
        self.calls.answered(Kind::SearchSlots, answers.is_ok(), now);
        let Ok(answers) = answers else { return };
        if self.is_draining() {
            return;
        }
        let mut has_found_all = true;
        let mut bytes_left: HashMap<WorkerId, usize> = HashMap::new();
        for (wanted, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(slots) => {
                    has_found_all &= slots.iter().map(|(_, count)| count).sum::<usize>() == wanted.count;
                    for (to, count) in slots {
                        let left = bytes_left.entry(Arc::clone(&to)).or_insert(MAX_SEARCH_BYTES);
                        self.offer(&wanted, &to, count, left, now);
                    }
                }
                Err(error) => debug!(event = "slots_not_found", worker = %self.id, queue = %wanted.queue, %error),
            }
        }
        if has_found_all && bytes_left.into_values().all(|left| left >= MAX_OFFER_BYTES) {
            self.start.offers.made.search_again(now);
        }
    }

    /// A worker that has run a record of this one has slots for more: offers the next ones, or nothing, so that it waits no more.
    pub(super) fn offer_next(&mut self, FreeAgain { worker, queue, task, count }: FreeAgain, now: Instant) {
        let definition = self.plan.tasks.get(&*task);
        let has_excess = definition.is_none() || self.has_excess(Job::lane_of(definition));
        let may_offer = has_excess && !self.is_draining() && self.start.controls.is_loaded();
        let count = if may_offer { count as usize } else { 0 };
        let mut left = MAX_SEARCH_BYTES;
        self.offer(&WantedSlots { queue, task, count }, &worker, count, &mut left, now);
    }

    /// Offers records to a worker that has this many slots for them, as long as there are bytes left for it.
    fn offer(&mut self, wanted: &WantedSlots, to: &WorkerId, count: usize, left: &mut usize, now: Instant) {
        let Self { intake, runs, start: Start { offers, controls, .. }, .. } = self;
        let jobs = offers.take(intake, runs, wanted, count, left, |job| !controls.withhold(job));
        debug!(event = "records_offered", worker = %self.id, %to, task = %Escaped(&wanted.task), records = jobs.len(), slots = count);
        let offer = |records| (Arc::clone(to), WorkerMessage::Offer(Offer { owner: Arc::clone(&self.id), records }));
        let (mut messages, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
        for job in jobs {
            if bytes + job.at.bytes > MAX_OFFER_BYTES && !records.is_empty() {
                messages.push(offer(std::mem::take(&mut records)));
                bytes = 0;
            }
            bytes += job.at.bytes;
            records.push(job.to_offer());
            offers.made.offered(job, to, now);
        }
        // Even without records, so that the worker announces its slots again.
        messages.push(offer(records));
        self.calls.start(Kind::SendOffers, calls::send_offers(Arc::clone(&self.store), messages));
    }

    /// Offers were sent, or could not be: what nobody has received is ready again.
    pub(super) fn offers_sent(&mut self, messages: Vec<(WorkerId, WorkerMessage)>, answers: Answers<bool>) {
        let answers = answers.unwrap_or_else(|error| messages.iter().map(|_| Err(error.clone())).collect());
        for ((_, message), is_received) in messages.into_iter().zip(answers) {
            if let WorkerMessage::Offer(offer) = message
                && !is_received.unwrap_or(false)
            {
                self.ready_again(offer.records.iter().map(|record| record.place));
            }
        }
    }

    /// Others do not run these records, perhaps for a reason that lasts: they are ready again after a moment, for this worker at first.
    pub(super) fn declined(&mut self, places: Vec<Place>, now: Instant) {
        let Start { offers, claims, .. } = &mut self.start;
        for place in places {
            if let Some(job) = offers.made.returned(place) {
                offers.declined.add(place, now);
                claims.ask_after(job, DECLINED_DELAY, now);
            }
        }
    }

    /// Others have not received these records, or have no slots for them.
    pub(super) fn ready_again(&mut self, places: impl IntoIterator<Item = Place>) {
        let jobs = places.into_iter().filter_map(|place| self.start.offers.made.returned(place));
        jobs.for_each(|job| self.intake.put_back(job));
    }

    /// These records have ended elsewhere.
    pub(super) fn completed(&mut self, places: Vec<Place>) {
        for place in places {
            // If it was looked at too early, this worker has taken it back meanwhile, and watches who runs it.
            let offered = self.start.offers.made.returned(place).map(|job| job.at);
            let at = offered.or_else(|| self.intake.position_of(place));
            self.effects.extend(at.map(Effect::Complete));
        }
    }

    /// These workers are dead: what they have of the records that were offered is ready again.
    pub(super) fn offers_lost(&mut self, dead: &[WorkerId], now: Instant) {
        let lost = self.start.offers.made.lost(dead, now);
        lost.into_iter().for_each(|job| self.intake.put_back(job));
    }

    /// Another worker offers records.
    pub(super) fn offered(&mut self, Offer { owner, records }: Offer, now: Instant) {
        let was_awaited = self.start.offers.received.offered_by(&owner);
        let (mut takes_any, mut fits_none) = (false, records.is_empty() && !was_awaited);
        let may_take = !self.is_draining() && self.start.controls.is_loaded();
        for record in records {
            let place = record.place;
            let job = self.intake.take_in(record, now).filter(|job| may_take && !self.start.controls.withhold(job));
            match job {
                Some(job) => {
                    let free = self.idle_slots(job.lane());
                    takes_any |= self.start.offers.received.receive(job, &owner, place, free);
                }
                None => {
                    fits_none = true;
                    self.start.offers.received.decline_unread(&owner, place);
                }
            }
        }
        let idle = &mut self.start.offers.idle;
        if fits_none && !takes_any { idle.refused(now) } else { idle.used() }
    }

    /// Lets owners know what became of their records.
    fn answer_offers(&mut self, now: Instant) {
        if self.start.offers.received.has_answered_all() || !self.calls.may_start(Kind::AnswerOffers, now) {
            return;
        }
        let is_draining = self.is_draining();
        let free = Lane::OF_RECORDS.map(|lane| {
            let announced = self.start.offers.idle.announced(lane);
            if is_draining { 0 } else { self.idle_slots(lane).saturating_sub(announced) }
        });
        let answers = self.start.offers.received.take_answers(free, now);
        self.calls.start(Kind::AnswerOffers, calls::answer_offers(Arc::clone(&self.store), answers));
    }

    /// Whether owners know what became of their records.
    pub(super) fn has_answered_offers(&self) -> bool {
        self.start.offers.received.has_answered_all() && self.calls.count(Kind::AnswerOffers) == 0
    }

    fn look_at_offered(&mut self, now: Instant) {
        if self.calls.may_start(Kind::LookAtOffered, now) {
            let jobs = self.start.offers.made.due(now);
            if !jobs.is_empty() {
                self.calls.start(Kind::LookAtOffered, calls::look_at_offered(Arc::clone(&self.store), jobs));
            }
        }
    }

    /// What the store knows of records that were offered.
    pub(super) fn looked_at(&mut self, jobs: Vec<Arc<Job>>, answers: Answers<Option<TaskState>>, now: Instant) {
        self.calls.answered(Kind::LookAtOffered, answers.is_ok(), now);
        let store_ms = self.heartbeat.store_ms(now);
        let answers = answers.unwrap_or_else(|error| jobs.iter().map(|_| Err(error.clone())).collect());
        for (job, answer) in jobs.into_iter().zip(answers) {
            let made = &mut self.start.offers.made;
            if !self.intake.owns(job.at) {
                made.returned(job.at.into());
                continue;
            }
            let fate = answer.ok().map(|state| Fate::of(state.as_ref(), &job, &self.id, store_ms));
            match made.looked(&job, fate, now) {
                Some(Fate::Ready | Fate::Absent) => self.intake.put_back(job),
                Some(Fate::Ended) => self.start.claims.ask_ended(job),
                Some(Fate::Runs { .. }) | None => {}
            }
        }
    }
}
