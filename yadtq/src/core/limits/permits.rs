//! How many tasks of a limit run at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The permits of one limit of tasks that run at once. Times are in ms since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    /// The runs that hold a permit, each with the time when its lease ends.
    pub runs: BTreeMap<Arc<str>, u64>,
    /// When the last of the runs without a permit tries again.
    pub next_retry_ms: u64,
    /// The latest time at which anybody asked.
    pub seen_ms: u64,
}

/// Time between the retries of two runs that got no permit, in ms, so that they do not all retry at once.
pub(crate) const PERMIT_RETRY_SPACING_MS: u64 = 5;
/// Shortest time before a run that got no permit retries.
pub(crate) const PERMIT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The store's clock may seem to go back by this much in ms, because calls overtake each other.
pub(crate) const PERMIT_CLOCK_TOLERANCE_MS: u64 = 1_000;

/// On which terms a worker takes permits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PermitTerms {
    /// For how long a permit lasts without being kept, in ms.
    pub lease_ms: u64,
    /// Whether permits that have lapsed may be given to others: not right after an outage, when their runs keep them first.
    pub take_over: bool,
}

/// Gives a run a permit, or extends the one that it has. `None`: it has a permit. Otherwise the time in ms after which
/// it may retry. `max_running`: the number of permits. `holds`: the run had a permit by its worker's account.
pub(crate) fn acquire_permit(
    permits: &mut Permits, run: &Arc<str>, max_running: u32, holds: bool, terms: PermitTerms, now_ms: u64,
) -> Option<u64> {
    permits.follow_clock(now_ms);
    if terms.take_over {
        permits.runs.retain(|_, until_ms| *until_ms > now_ms);
    }
    if holds || permits.runs.contains_key(run) || permits.runs.len() < max_running as usize {
        permits.runs.insert(Arc::clone(run), now_ms + terms.lease_ms);
        return None;
    }
    permits.next_retry_ms = permits.next_retry_ms.max(now_ms) + PERMIT_RETRY_SPACING_MS;
    Some(permits.next_retry_ms - now_ms)
}

impl Permits {
    /// If the store's clock has gone back, so do the times by it. Else what a dead worker has left would last until the clock
    /// has caught up.
    fn follow_clock(&mut self, now_ms: u64) {
        let back_ms = self.seen_ms.saturating_sub(now_ms);
        if back_ms > PERMIT_CLOCK_TOLERANCE_MS {
            self.runs.values_mut().for_each(|until_ms| *until_ms = until_ms.saturating_sub(back_ms));
            self.next_retry_ms = self.next_retry_ms.saturating_sub(back_ms);
            self.seen_ms = 0;
        }
        self.seen_ms = self.seen_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const TERMS: PermitTerms = PermitTerms { lease_ms: 6_000, take_over: true };

    proptest! {
        #[test]
        fn never_more_runs_than_permits(
            most in 1..5_u32, asks in vec((0..8_u32, 0..2_000_u64, any::<bool>()), 1..200),
        ) {
            let (mut permits, mut now, mut running) = (Permits::default(), 1_000, BTreeMap::<u32, u64>::new());
            for (run, passed, ends) in asks {
                now += passed;
                running.retain(|_, until| *until > now);
                let name: Arc<str> = run.to_string().into();
                if ends {
                    permits.runs.remove(&name);
                    running.remove(&run);
                } else if acquire_permit(&mut permits, &name, most, running.contains_key(&run), TERMS, now).is_none() {
                    running.insert(run, now + 6_000);
                }
                prop_assert!(running.len() <= most as usize);
            }
        }
    }

    #[test]
    fn runs_without_a_permit_retry_one_after_the_other() {
        let mut permits = Permits::default();
        let mut ask = |run: &str| acquire_permit(&mut permits, &run.into(), 1, false, TERMS, 1_000);
        assert_eq!([ask("a"), ask("b"), ask("c"), ask("a")], [None, Some(5), Some(10), None]);
        assert_eq!(
            acquire_permit(&mut permits, &"b".into(), 1, true, TERMS, 1_000),
            None,
            "a running task keeps its permit"
        );
        assert_eq!(acquire_permit(&mut permits, &"c".into(), 1, false, TERMS, 7_000), None, "both leases are over");
    }

    #[test]
    fn after_an_outage_a_permit_that_has_lapsed_is_left_to_its_run() {
        let mut permits = Permits::default();
        let mut ask = |run: &str, holds, take_over, now_ms| {
            acquire_permit(&mut permits, &run.into(), 1, holds, PermitTerms { take_over, ..TERMS }, now_ms)
        };
        assert_eq!(ask("a", false, true, 1_000), None);
        assert_eq!(ask("b", false, false, 9_000), Some(5), "an outage is over, and `a` may still run");
        assert_eq!(ask("a", true, false, 9_000), None);
        assert_eq!(ask("b", false, true, 9_001), Some(9));
        assert_eq!(ask("b", false, true, 15_000), None);
    }

    #[test]
    fn a_permit_lasts_no_longer_because_the_clock_goes_back() {
        let (mut permits, hour) = (Permits::default(), 3_600_000);
        let mut ask = |run: &str, now_ms| acquire_permit(&mut permits, &run.into(), 1, false, TERMS, now_ms);
        assert_eq!((ask("dead", 2 * hour), ask("b", 2 * hour)), (None, Some(5)));
        assert_eq!(ask("b", hour), Some(10), "it waits in turn as before");
        assert_eq!(ask("b", hour + 6_000), None);
    }
}
