//! Asks the store which waiting jobs this worker may run, as many at once as it has slots for.
//!
//! One batch is under way at a time, and the next goes when it is back: alone, a task waits for nothing;
//! under load, batches grow. An answer that never came is asked for again with the same nonces.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    control::{Control, LEASE},
    in_place::look_again,
    job::{Job, Lane, Run},
    levels::{self, Rank},
    step::{Due, PAUSE, Step},
    unique,
};
use crate::{
    core::{
        lifecycle::{Claim, Claimer, Token},
        priority::{Chooser, Priority},
    },
    store::Answers,
    wire::failure::{ErrorKind, Failure},
};

/// Jobs per call and lane.
const BATCH: usize = 512;
/// How long a claim waits that the store refused.
const REFUSED: Duration = Duration::from_secs(1);

/// What is asked.
pub(super) struct Claims {
    pub(super) asking: bool,
    /// Which sources have jobs among those that are asked for, in each lane.
    asked: [Vec<bool>; 2],
    /// The queue whose turn it is to be first.
    turn: usize,
    /// Whose turn it is in each queue.
    choosers: [Vec<Chooser>; 2],
}

impl Claims {
    pub(super) fn new(queues: usize, strict: bool) -> Self {
        let choosers = || vec![Chooser::new(strict); queues];
        let nothing = || vec![false; queues * Priority::ALL.len()];
        Self { asking: false, asked: [nothing(), nothing()], turn: 0, choosers: [choosers(), choosers()] }
    }

    /// Whether jobs of this source are asked for.
    pub(super) fn has_asked(&self, source: usize, lane: Lane) -> bool {
        self.asked[lane as usize][source]
    }
}

/// A batch of claims, and its answers.
pub(super) struct Claimed {
    jobs: Vec<Arc<Job>>,
    sent: Instant,
    answers: Answers<Claim>,
}

impl Control {
    pub(super) fn pump_claims(&mut self) {
        if self.claims.asking || self.limits.is_full() || !self.standing.is_loaded {
            return;
        }
        let mut jobs = Vec::new();
        for lane in Lane::ALL {
            self.pop_ready(lane, &mut jobs);
        }
        for job in &jobs {
            self.claims.asked[job.lane() as usize][job.at.queue] = true;
        }
        self.pop_doomed(&mut jobs);
        if jobs.is_empty() {
            return;
        }
        let by = Claimer {
            worker: Arc::clone(&self.id),
            lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
            // After an outage the owners of leases extend first.
            take_over: self.store.connected_for().is_some_and(|up| up >= LEASE),
            quarantine: u32::from(self.slots.quarantine_is_free()),
            max_deliveries: self.plan.options.max_deliveries,
        };
        let store = Arc::clone(&self.store);
        self.claims.asking = true;
        self.calls.push(Box::pin(async move {
            let sent = Instant::now();
            let asks: Vec<_> = jobs.iter().map(|job| (job.envelope.id.clone(), Arc::clone(&job.ask))).collect();
            let answers = store.claim(&by, &asks).await;
            if answers.is_err() {
                sleep(PAUSE).await;
            }
            Step::Claimed(Claimed { jobs, sent, answers })
        }));
    }

    /// Takes as many jobs as there is room for, from all queues in turn, and of each the priority whose turn it is.
    fn pop_ready(&mut self, lane: Lane, jobs: &mut Vec<Arc<Job>>) {
        let (mut room, queues) = (self.slots.room(lane).saturating_sub(self.limits.pending()), self.plan.queues.len());
        let (mut idle, most) = (0, jobs.len() + BATCH);
        while room > 0 && idle < queues && jobs.len() < most {
            self.claims.turn = (self.claims.turn + 1) % queues;
            match self.pop_next(self.claims.turn, lane) {
                Some(job) => {
                    // Those in front of it wait for their limits; they are not to keep it waiting.
                    room -= usize::from(!self.limits.parks(&job));
                    jobs.push(job);
                    idle = 0;
                }
                None => idle += 1,
            }
        }
        self.pop_above(lane, jobs);
    }

    /// Takes jobs that were purged, from all queues: they need no room.
    fn pop_doomed(&mut self, jobs: &mut Vec<Arc<Job>>) {
        let mut most = BATCH;
        for source in &mut self.sources {
            let before = jobs.len();
            jobs.extend(source.pop_doomed(most));
            most -= jobs.len() - before;
        }
    }

    fn pop_next(&mut self, queue: usize, lane: Lane) -> Option<Arc<Job>> {
        let chooser = &mut self.claims.choosers[lane as usize][queue];
        let priority = chooser.next(levels::of(&self.sources, queue).map(|source| source.is_ready(lane)))?;
        chooser.spend(priority);
        self.sources[Rank { queue, priority }.source()].pop(lane)
    }

    /// Takes jobs for free slots that lower ones of their queue would get.
    fn pop_above(&mut self, lane: Lane, jobs: &mut Vec<Arc<Job>>) {
        for (index, source) in self.sources.iter_mut().enumerate().filter(|(_, source)| source.is_ready(lane)) {
            let Rank { queue, priority } = Rank::of(index);
            let above = |job: &&Arc<Job>| {
                let rank = Rank::of(job.at.queue);
                job.lane() == lane && rank.queue == queue && rank.priority <= priority
            };
            if self.slots.room_above(lane, queue, priority, 0) > 0 {
                let room = self.slots.room_above(lane, queue, priority, jobs.iter().filter(above).count());
                jobs.extend(std::iter::from_fn(|| source.pop(lane)).take(room.min(BATCH)));
            }
        }
    }

    pub(super) fn claimed(&mut self, Claimed { jobs, sent, answers }: Claimed) {
        self.claims.asking = false;
        self.claims.asked.iter_mut().for_each(|asked| asked.fill(false));
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                debug!(event = "claim_unanswered", worker = %self.id, jobs = jobs.len(), %error, "asking again");
                jobs.into_iter().rev().for_each(|job| self.sources[job.at.queue].push_front(job));
                return;
            }
        };
        let mut keys = Vec::new();
        for (job, answer) in jobs.into_iter().zip(answers) {
            match answer {
                Ok(Claim::Granted { token, deliveries, attempt }) => {
                    let job = match attempt == job.ask.attempt {
                        true => job,
                        false => Arc::new(job.at_attempt(attempt, job.ask.nonce)),
                    };
                    keys.extend(unique::key(&job));
                    self.granted(job, token, deliveries, sent);
                }
                Ok(Claim::Held { ms_left, mine }) => self.held(job, Duration::from_millis(ms_left), mine),
                Ok(Claim::Done) => self.complete_offset(job.at),
                Ok(Claim::Revoked) => {
                    info!(event = "task_revoked", worker = %self.id, task_id = %job.envelope.id, task = %job.ask.task,
                        queue = %job.ask.queue, attempt = job.ask.attempt, kind = "revoked", "task revoked");
                    self.complete_offset(job.at);
                }
                Ok(Claim::Moved { attempt, due, error }) => {
                    self.publish_next(&job, attempt, due, None, error.as_deref(), vec![job.at]);
                }
                Ok(Claim::Dead { error, deliveries }) => self.dead(&job, &error, deliveries),
                Err(error) => {
                    error!(event = "claim_failed", worker = %self.id, task_id = %job.envelope.id, %error,
                        "the task waits until this is mended");
                    self.later.insert(Due::Ask(job), REFUSED);
                }
            }
        }
        self.confirm_keys(keys);
        self.give_back_paused();
        self.start_granted();
    }

    fn granted(&mut self, job: Arc<Job>, token: Token, deliveries: u32, sent: Instant) {
        let (id, limit_slot) = (job.envelope.id.clone(), job.envelope.limit_slot);
        let mut run = Run {
            job,
            joined: Vec::new(),
            token,
            deliveries,
            confirmed: sent,
            granted: Instant::now(),
            started: None,
            cancel: CancellationToken::new(),
            abort: None,
            timer: None,
            revoking: false,
            overrun: false,
            admitted: None,
            seat: None,
            // Should it be parked before it starts, it holds its place in line.
            limit_slot,
        };
        if let Some(older) = self.runs.remove(&id) {
            // Its lease was lost, or this would not have been granted.
            warn!(event = "lease_lost", worker = %self.id, task_id = %id, token = older.token, "granted anew");
            older.stop();
            run.joined.extend(older.jobs().cloned());
        }
        let unknown = run.job.definition.is_none();
        // From a producer that knows no delayed tasks.
        let early = run.job.envelope.eta.filter(|&eta| eta > self.now_ms());
        let suspect = deliveries >= Claimer::SUSPECT;
        let job = Arc::clone(&run.job);
        if self.draining {
            return self.give_back(&[run], Vec::new());
        }
        self.runs.insert(id.clone(), run);
        if self.is_overruled(&job, token) {
            // It does not start.
        } else if let Some(eta) = early {
            self.park(id, token, eta);
        } else if unknown {
            self.unknown(id, token);
        } else if self.is_limited(&job) {
            self.limit(id, token);
        } else {
            self.slots.grant(&job, suspect, token);
        }
    }

    fn held(&mut self, job: Arc<Job>, left: Duration, mine: bool) {
        match self.runs.get_mut(&job.envelope.id) {
            Some(run) if mine && job.ask.seq <= run.job.ask.seq => {
                // Of those that joined earlier, some may have gone to other workers.
                run.joined.retain(|joined| self.sources[joined.at.queue].owns(joined.at));
                run.joined.push(job);
            }
            _ => {
                self.later.insert(Due::Ask(job), look_again(left));
            }
        }
    }

    /// It is time to ask (again), unless the record went to another worker.
    pub(super) fn ask(&mut self, job: Arc<Job>) {
        let source = &mut self.sources[job.at.queue];
        if source.owns(job.at) {
            source.push(job);
        }
    }

    fn dead(&mut self, job: &Job, error: &str, deliveries: u32) {
        let failure = serde_json::from_str::<Failure>(error);
        let failure =
            failure.unwrap_or_else(|_| Failure::new(ErrorKind::Deliveries, error.to_owned(), job.ask.attempt));
        self.bury_failed(job, vec![job.at], &failure, deliveries);
    }
}
