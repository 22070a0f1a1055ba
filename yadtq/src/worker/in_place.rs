//! Tasks with an ordering key that go on later: their record keeps its place, so that those behind it wait.
//!
//! Nothing is published. The store says when the task is due, and any worker that has the record asks until then. What
//! waits takes no slot.

use std::{sync::Arc, time::Duration};

use super::{
    control::{Control, LEASE},
    job::{Job, Run},
    step::Due,
};
use crate::{
    core::lifecycle::{Ask, Next},
    wire::failure::Failure,
};

/// How often a lease of somebody else is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// The longest time after which a task that waits in place is looked at, so that its revocation is heard of.
const LONGEST: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(10);

/// When to ask again for a task that is held for so long: by a lease, or until it is due in place.
pub(super) fn look_again(left: Duration) -> Duration {
    let rarely = if left > LEASE { (left / 8).min(LONGEST) } else { WATCH };
    left.clamp(SHORTEST, rarely.max(WATCH))
}

impl Control {
    /// The records of a run that was handed on in place ask again.
    pub(super) fn keep_in_place(&mut self, run: &Run, next: &Next, failure: Option<&Failure>) {
        let wait = look_again(Duration::from_millis(next.due.saturating_sub(self.now_ms())));
        let failure = failure.cloned().map(Arc::new);
        for job in run.jobs().filter(|job| self.sources[job.at.queue].owns(job.at)) {
            let mut job = job.at_attempt(next.attempt, self.intake.next_nonce());
            // Should the store forget it meanwhile, it still waits.
            job.envelope.eta = Some(next.due);
            if failure.is_some() {
                job.envelope.last_error.clone_from(&failure);
            }
            // It holds its place in line.
            job.envelope.limit_slot = run.limit_slot;
            self.later.insert(Due::Ask(Arc::new(job)), wait);
        }
    }
}

impl Job {
    /// The same record, as a later attempt than it says itself.
    pub(super) fn at_attempt(&self, attempt: u32, nonce: u64) -> Self {
        let mut job = self.clone();
        job.ask = Arc::new(Ask { attempt, nonce, ..(*self.ask).clone() });
        job.envelope.attempt = attempt;
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_long_is_looked_at_rarely_and_nothing_too_late() {
        let again = |ms| look_again(Duration::from_millis(ms)).as_millis();
        assert_eq!((again(0), again(300), again(5_000)), (10, 300, 1_000));
        assert_eq!((again(7_000), again(16_000), again(100_000_000)), (1_000, 2_000, 5_000));
    }
}
