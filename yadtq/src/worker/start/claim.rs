//! Which jobs are claimed, and what the answers mean. As many are claimed at once as there are slots for.
//!
//! One batch is under way at a time, and the next goes when it is back: alone, a task waits for nothing; under load, batches
//! grow. If no answer comes, the same jobs are claimed again with the same nonces.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::{limits::Limits, offers::Offers, watch::watch_delay};
use crate::{
    core::{
        lifecycle::Claim,
        names::{TaskId, WorkerId},
        priority::PerPriority,
        text::Escaped,
        unique::UniqueKey,
    },
    store::StoreError,
    wire::failure::Failure,
    worker::{
        effect::{DeadLetter, Effect, Effects, Grant, NextRecord},
        intake::Intake,
        job::{Job, Lane, SourceId},
        runs::Runs,
        timers::Timers,
    },
};

/// The most jobs per call and lane, and the most purged ones.
const CLAIM_BATCH: usize = 512;
/// The wait before a job is claimed again whose claim the store refused.
const REFUSED_DELAY: Duration = Duration::from_secs(1);

/// The claims of a worker.
pub(in crate::worker) struct Claims {
    worker: WorkerId,
    /// Which sources have jobs among those that are being claimed, in each lane.
    asked: [Vec<bool>; 2],
    /// Number of jobs that are being claimed, in each lane.
    asking: [usize; 2],
    /// Jobs whose tasks have ended elsewhere: the claim says how.
    ended: Vec<Arc<Job>>,
    /// Jobs that are claimed again when their time has come.
    later: Timers<Arc<Job>>,
    /// The same, of those that a lease or a wait in place holds.
    held: Timers<Arc<Job>>,
}

impl Claims {
    pub(in crate::worker) fn new(worker: &WorkerId, queues: usize) -> Self {
        let nothing = || vec![false; SourceId::all(queues).count()];
        Self {
            worker: Arc::clone(worker),
            asked: [nothing(), nothing()],
            asking: [0; 2],
            ended: Vec::new(),
            later: Timers::default(),
            held: Timers::default(),
        }
    }

    /// The next batch of jobs to claim; empty if there is nothing to claim, or no room.
    pub(in crate::worker) fn next_batch(
        &mut self, intake: &mut Intake, runs: &mut Runs, limits: &Limits, offers: &mut Offers, now: Instant,
    ) -> Vec<Arc<Job>> {
        let mut jobs = Vec::new();
        for lane in Lane::OF_RECORDS.into_iter().filter(|_| !limits.is_full()) {
            take_ready(lane, intake, runs, limits, offers, now, &mut jobs);
        }
        for job in &jobs {
            self.asked[job.lane() as usize][job.at.source.index()] = true;
            self.asking[job.lane() as usize] += 1;
        }
        // All the rest needs no room, since it ends without running.
        intake.take_purged(CLAIM_BATCH, &mut jobs);
        let unknown = std::iter::from_fn(|| offers.unknown.due(now)).take(CLAIM_BATCH);
        jobs.extend(unknown.filter(|job| intake.owns(job.at)));
        jobs.extend(self.ended.drain(..self.ended.len().min(CLAIM_BATCH)));
        jobs
    }

    /// Which priorities of a queue have tasks that may be granted soon: they are being claimed, or ready to be claimed.
    pub(in crate::worker) fn coming(&self, intake: &Intake, queue: usize, lane: Lane) -> PerPriority<bool> {
        let is_asked = |source: SourceId| self.asked[lane as usize][source.index()];
        SourceId::of_queue(queue).map(|source| intake.is_ready(source, lane) || is_asked(source))
    }

    /// Number of jobs of a lane that are being claimed.
    pub(in crate::worker) fn asking(&self, lane: Lane) -> usize {
        self.asking[lane as usize]
    }

    fn returned(&mut self) {
        self.asked.iter_mut().for_each(|asked| asked.fill(false));
        self.asking = [0; 2];
    }

    /// The store did not answer: the same jobs are claimed again, first of all.
    pub(in crate::worker) fn unanswered(
        &mut self, jobs: Vec<Arc<Job>>, error: &StoreError, intake: &mut Intake, offers: &mut Offers,
    ) {
        self.returned();
        debug!(event = "claim_unanswered", worker = %self.worker, jobs = jobs.len(), %error, "asking again");
        for job in jobs.into_iter().rev() {
            if job.at.is_foreign() { offers.received.put_back(job) } else { intake.put_back(job) }
        }
    }

    /// The store has answered. Returns the unique keys of what was granted: Kafka has their tasks.
    pub(in crate::worker) fn answered(
        &mut self, jobs: Vec<Arc<Job>>, sent: Instant, answers: Vec<Result<Claim, StoreError>>, out: &mut Effects,
    ) -> Vec<(UniqueKey, TaskId)> {
        self.returned();
        let mut keys = Vec::new();
        for (job, answer) in jobs.into_iter().zip(answers) {
            match answer {
                Ok(Claim::Granted { token, deliveries, attempt }) => {
                    let is_known = attempt == job.ask.attempt;
                    let job = if is_known { job } else { Arc::new(job.at_attempt(attempt)) };
                    keys.extend(unique_key(&job));
                    out.push_back(Effect::Grant(Grant { job, token, deliveries, sent }));
                }
                Ok(Claim::Held { ms_left, mine }) => {
                    out.push_back(Effect::Hold { job, left: Duration::from_millis(ms_left), is_ours: mine });
                }
                Ok(Claim::Done) => out.push_back(Effect::Complete(job.at)),
                Ok(Claim::Revoked) => {
                    info!(event = "task_revoked", worker = %self.worker, task_id = %job.envelope.id.shown(), task = %Escaped(&job.ask.task),
                        queue = %job.ask.queue, attempt = job.ask.attempt, kind = "revoked", by = "claim", "task revoked");
                    out.push_back(Effect::Complete(job.at));
                }
                Ok(Claim::Moved { attempt, due, error }) => {
                    let at = vec![job.at];
                    out.push_back(Effect::PublishNext(NextRecord {
                        job,
                        attempt,
                        due,
                        limit_slot: None,
                        unknown_since: None,
                        error,
                        at,
                    }));
                }
                Ok(Claim::Dead { error, deliveries }) => {
                    let failure = Failure::read(&error, job.ask.attempt);
                    let at = vec![job.at];
                    out.push_back(Effect::DeadLetter(DeadLetter { job, failure, deliveries, at }));
                }
                Err(error) if error.is_outage() => {
                    debug!(event = "claim_unanswered", worker = %self.worker, jobs = 1, %error, "asking again");
                    out.push_back(Effect::AskAfter(job, REFUSED_DELAY));
                }
                Err(error) => {
                    error!(event = "claim_failed", worker = %self.worker, task_id = %job.envelope.id.shown(), %error,
                        "the task waits until this is fixed");
                    out.push_back(Effect::AskAfter(job, REFUSED_DELAY));
                }
            }
        }
        out.push_back(Effect::FillSlots);
        keys
    }

    /// The job is claimed again after this time.
    pub(in crate::worker) fn ask_after(&mut self, job: Arc<Job>, after: Duration, now: Instant) {
        self.later.set(now, after, job);
    }

    /// The task of a record that was offered has ended. The record is claimed without a slot: what is said of it completes it.
    pub(in crate::worker) fn ask_ended(&mut self, job: Arc<Job>) {
        self.ended.push(job);
    }

    /// A lease, or a wait in place, holds the task for this long: the job is claimed again when that is over, and a few times
    /// before if that is long.
    pub(in crate::worker) fn hold(&mut self, job: Arc<Job>, left: Duration, now: Instant) {
        self.held.set(now, watch_delay(left), job);
    }

    /// A worker has died: what a lease holds may be free now, so it is claimed again at once.
    pub(in crate::worker) fn ask_held(&mut self, intake: &mut Intake) {
        std::mem::take(&mut self.held).into_values().for_each(|job| intake.ask(job));
    }

    /// Jobs whose time has come are ready to be claimed again.
    pub(in crate::worker) fn due(&mut self, now: Instant, intake: &mut Intake) {
        for timers in [&mut self.later, &mut self.held] {
            while let Some(job) = timers.pop(now) {
                intake.ask(job);
            }
        }
    }

    pub(in crate::worker) fn next_due(&self) -> Option<Instant> {
        self.later.next().into_iter().chain(self.held.next()).min()
    }
}

/// Takes as many jobs as there is room for: what others offer, then from all queues in turn, and within each the priority whose turn it is; then
/// those for free slots that lower ones of their queue would get.
fn take_ready(
    lane: Lane, intake: &mut Intake, runs: &mut Runs, limits: &Limits, offers: &mut Offers, now: Instant,
    jobs: &mut Vec<Arc<Job>>,
) {
    let mut room = runs.slots.room(lane, now).saturating_sub(limits.pending());
    let most = jobs.len() + CLAIM_BATCH;
    while room > 0 && jobs.len() < most {
        let Some(job) = offers.received.pop(lane).or_else(|| intake.take(lane)) else { break };
        let Some(job) = offers.unknown.wait(job, now) else { continue };
        // A task that will wait for its limits takes no slot, and must not delay those behind it.
        room -= usize::from(!limits.will_wait(&job, now));
        jobs.push(job);
    }
    for source in intake.source_ids() {
        if intake.is_ready(source, lane) && runs.slots.room_above(lane, source, 0) > 0 {
            let is_above = |job: &&Arc<Job>| {
                let at = job.at.source;
                job.lane() == lane && at.queue == source.queue && at.priority <= source.priority
            };
            let room = runs.slots.room_above(lane, source, jobs.iter().filter(is_above).count());
            let taken = std::iter::from_fn(|| intake.take_from(source, lane)).take(room.min(CLAIM_BATCH));
            jobs.extend(taken.filter_map(|job| offers.unknown.wait(job, now)));
        }
    }
}

/// The unique key of a job, if it has one. Whoever reads its record knows that Kafka has it, even if its sender could not
/// say so: a key that stayed pending for longer than the end of its task is remembered would run the task once more.
fn unique_key(job: &Job) -> Option<(UniqueKey, TaskId)> {
    let key = Arc::clone(job.envelope.unique.as_ref()?);
    Some((UniqueKey { task: Arc::clone(&job.envelope.task), key }, job.envelope.id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::names::Namespace,
        worker::{job::RunId, options::Plan},
    };

    #[test]
    fn what_counts_as_unknown_is_claimed_even_if_a_whole_batch_waits_for_its_limits() {
        let (plan, id, now): (_, WorkerId, _) = (Arc::new(Plan::for_test()), "w".into(), Instant::now());
        let mut claims = Claims::new(&id, 1);
        let (mut intake, mut runs) = (Intake::new(&id, &plan, &Namespace::default(), now), Runs::new(&id, &plan, now));
        let (mut limits, mut offers) = (Limits::new(&id, &plan), Offers::new(&id, &plan));
        while !limits.is_full() {
            let known = Job::for_test(r#"{"task-id":"t","task":"noop","args":[]}"#);
            limits.ask(RunId { task: TaskId::new(), token: 1 }, &known, now);
        }
        let unknown = Job::for_test(r#"{"task-id":"t","task":"other","args":[]}"#);
        offers.unknown.wait(Arc::new(unknown), now);
        let due = offers.unknown.next_due().unwrap();
        claims.next_batch(&mut intake, &mut runs, &limits, &mut offers, due);
        assert_eq!(offers.unknown.next_due(), None, "or the loop would wake up for it again and again");
    }

    #[test]
    fn each_answer_has_its_effect_and_a_refused_job_asks_again() {
        let (now, mut out) = (Instant::now(), Effects::new());
        let mut claims = Claims::new(&"w".into(), 1);
        let job = || Arc::new(Job::for_test(r#"{"task-id":"t","task":"noop","args":[],"unique":"u"}"#));
        let error: Arc<str> = r#"{"kind":"deliveries","message":"m","attempt":1}"#.into();
        let refused = StoreError::Refused("no".to_owned());
        let answers = vec![
            Ok(Claim::Granted { token: 7, deliveries: 1, attempt: 2 }),
            Ok(Claim::Held { ms_left: 20, mine: true }),
            Ok(Claim::Done),
            Ok(Claim::Revoked),
            Ok(Claim::Moved { attempt: 2, due: 5, error: None }),
            Ok(Claim::Dead { error, deliveries: 6 }),
            Err(refused),
        ];
        let keys = claims.answered((0..7).map(|_| job()).collect(), now, answers, &mut out);
        assert_eq!(keys.len(), 1, "of the one that was granted");
        assert!(matches!(&out[0], Effect::Grant(grant) if grant.token == 7 && grant.job.envelope.attempt == 2));
        assert!(matches!(&out[1], Effect::Hold { is_ours: true, .. }));
        assert!(matches!((&out[2], &out[3]), (Effect::Complete(_), Effect::Complete(_))));
        assert!(matches!(&out[4], Effect::PublishNext(next) if next.attempt == 2 && next.due == 5));
        assert!(matches!(&out[5], Effect::DeadLetter(dead) if dead.deliveries == 6 && dead.failure.message == "m"));
        assert!(matches!(&out[6], Effect::AskAfter(_, REFUSED_DELAY)));
        assert!(matches!(&out[7], Effect::FillSlots));
        assert_eq!(out.len(), 8);
    }
}
