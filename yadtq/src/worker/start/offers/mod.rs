//! Work goes where there are free slots: which records of this worker others may run, and which of theirs it runs.
//!
//! ```text
//!  an owner without a free slot       store                 a worker with free slots and nothing ready
//!    records are ready                  ◄──── announces its slots ───┘
//!    takes announced slots ◄────────────┘
//!    offers that many records ───────── message ─────────► claims them as always, or declines
//!    ready again ◄───────────────────── message ─────────────────┤ declined
//!    offset completed ◄──────────────── message ─────────────────┘ ended and recorded, what follows is published
//!    offers the next records ◄───────── message ─────────────────┘ with it: so many slots are free again
//!    no message for 100 ms: reads what became of them: runs, has ended, or ready again
//! ```
//! An offer is a hint. The owner still holds the record, and the claim alone decides who runs it; so a lost offer costs a tenth of
//! a second. A run under an offer ends as any other: its worker records the end and publishes what follows. But its offset is the
//! owner's: to complete it, a message goes there. If that is lost, the owner finds in the store that the task has ended, and claims
//! the record, as if it had come back.
//!
//! Records with an ordering key are not offered, because their order is kept by their owner. A record of a task that its owner does
//! not know waits for somebody who does, before it counts as unknown ([`unknown`]).

pub(in crate::worker) mod declined;
pub(in crate::worker) mod fate;
pub(in crate::worker) mod idle;
pub(in crate::worker) mod made;
pub(in crate::worker) mod received;
pub(in crate::worker) mod unknown;

use std::{collections::HashMap, sync::Arc};

use self::{declined::Declined, idle::Idle, made::Made, received::Received, unknown::Unknown};
use crate::{
    core::names::WorkerId,
    store::WantedSlots,
    worker::{
        intake::Intake,
        job::{Job, Lane, Position},
        options::Plan,
        runs::Runs,
    },
};

/// The most records that are counted in one search for slots: of each lane, and of unknown tasks.
const SEARCHED_RECORDS: usize = 256;
/// The most tasks for which slots are looked for at once.
const SEARCHED_TASKS: usize = 16;

/// The offers of a worker: those that it made, those that it received, and the slots that it announces for more.
pub(in crate::worker) struct Offers {
    pub(in crate::worker) idle: Idle,
    pub(in crate::worker) declined: Declined,
    pub(in crate::worker) made: Made,
    pub(in crate::worker) received: Received,
    pub(in crate::worker) unknown: Unknown,
}

impl Offers {
    pub(in crate::worker) fn new(worker: &WorkerId, plan: &Arc<Plan>) -> Self {
        Self {
            idle: Idle::new(plan),
            declined: Declined::default(),
            made: Made::new(plan.options.lease),
            received: Received::new(worker),
            unknown: Unknown::new(plan.options.unknown_task_grace),
        }
    }

    /// The slots to look for: for what is ready in these lanes, and for tasks that this worker does not know. `which`: the records
    /// that count.
    pub(in crate::worker) fn wanted(
        &self, intake: &Intake, lanes: &[Lane], which: impl Fn(&Job) -> bool,
    ) -> Vec<WantedSlots> {
        let which = |job: &Job| !self.declined.contains(job) && which(job);
        let count =
            |jobs: &mut dyn Iterator<Item = &Arc<Job>>| count(jobs.filter(|job| which(job)).take(SEARCHED_RECORDS));
        let mut wanted = count(&mut self.unknown.waiting());
        for &lane in lanes {
            wanted.extend(count(&mut intake.offerable(lane)));
        }
        wanted.truncate(SEARCHED_TASKS);
        wanted
    }

    /// Takes out records that were counted in [`wanted`](Self::wanted): at most this many, and no more than there are bytes `left`.
    /// Those of tasks that run here are not offered: they end with their runs.
    pub(in crate::worker) fn take(
        &mut self, intake: &mut Intake, runs: &mut Runs, wanted: &WantedSlots, most: usize, left: &mut usize,
        which: impl Fn(&Job) -> bool,
    ) -> Vec<Arc<Job>> {
        let which = |job: &Job| !self.declined.contains(job) && which(job);
        let is_wanted = |job: &Job| job.ask.task == wanted.task && job.ask.queue == wanted.queue && which(job);
        let mut taken = self.unknown.take(most, is_wanted);
        taken.retain(|job| intake.owns(job.at));
        // Records of unknown tasks lie there too, until there is a slot to claim them.
        taken.extend(intake.take_offerable(wanted, most - taken.len(), which));
        let is_open = |at: Position| at.is_foreign() || intake.owns(at);
        let mut taken: Vec<_> = taken.into_iter().filter_map(|job| runs.join(job, is_open).err()).collect();
        let fits = |job: &&Arc<Job>| {
            let after = left.checked_sub(job.at.bytes);
            *left = after.unwrap_or(0);
            after.is_some()
        };
        let rest = taken.split_off(taken.iter().take_while(fits).count());
        rest.into_iter().rev().for_each(|job| intake.put_back(job));
        taken
    }
}

/// How many of these records each task has.
fn count<'a>(jobs: impl Iterator<Item = &'a Arc<Job>>) -> Vec<WantedSlots> {
    let mut counts: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
    for job in jobs {
        *counts.entry((Arc::clone(&job.ask.queue), Arc::clone(&job.ask.task))).or_default() += 1;
    }
    counts.into_iter().map(|((queue, task), count)| WantedSlots { queue, task, count }).collect()
}

#[cfg(test)]
mod tests;
