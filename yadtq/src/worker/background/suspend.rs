//! Notices that this machine was suspended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

/// A worker that was suspended for longer than this drops what it holds, and goes on as a new one. Half of
/// [`LeaseProof::MEMORY_MS`], for which a worker's memory may stand in for a record that the store has lost.
///
/// [`LeaseProof::MEMORY_MS`]: crate::core::lifecycle::LeaseProof::MEMORY_MS
const LONGEST_SUSPENSION: Duration = Duration::from_secs(15 * 60);

/// Compares times: by the machine's own clock, which goes on while it sleeps, and by the store's, since the clocks of a
/// paused virtual machine stand still. The store's clock alone proves nothing, as it may have been set: the others must have noticed
/// too, and have taken the worker out of the registry. If nobody was there to notice, nobody has finished anything either. Clones share what they find: all loops of a worker come to the same result, whichever
/// looks first.
#[derive(Clone)]
pub(in crate::worker) struct SuspendDetector {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// When the last iteration of any loop was, on the machine's clock.
    last_check: Duration,
    /// When the last heartbeat was answered: on the machine's clock, and on the store's, in µs.
    last_beat: Option<(Duration, u64)>,
    was_suspended: bool,
}

impl SuspendDetector {
    pub(in crate::worker) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State { last_check: clock.steady(), ..State::default() };
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Whether the machine was suspended for too long since the detector was made. Has to be called in every iteration of a loop.
    pub(in crate::worker) fn was_suspended(&self) -> bool {
        let (now, mut state) = (self.clock.steady(), self.state());
        state.was_suspended |= now.saturating_sub(state.last_check) > LONGEST_SUSPENSION;
        state.last_check = now.max(state.last_check);
        state.was_suspended
    }

    /// Has to be called with the store's time, in µs, of every heartbeat. `was_removed`: the store knew nothing of the worker.
    pub(in crate::worker) fn compare(&self, store_us: u64, was_removed: bool) {
        let (now, mut state) = (self.clock.steady(), self.state());
        if let Some((steady, us)) = state.last_beat {
            let theirs = Duration::from_micros(store_us.saturating_sub(us));
            let stood_still = theirs.saturating_sub(now.saturating_sub(steady)) > LONGEST_SUSPENSION;
            state.was_suspended |= stood_still && was_removed;
        }
        state.last_beat = Some((now, store_us));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_pause_shows_on_either_clock_and_a_short_one_on_none() {
        let clock = Arc::new(ManualClock::at_us(1));
        let detector = SuspendDetector::new(Arc::clone(&clock) as Arc<dyn Clock>);
        clock.advance(LONGEST_SUSPENSION);
        assert!(!detector.was_suspended());
        clock.advance(LONGEST_SUSPENSION + Duration::from_secs(1));
        assert!(detector.was_suspended());
        assert!(detector.was_suspended(), "and stays so");

        let detector = SuspendDetector::new(clock);
        for (store_us, was_removed) in [(0, true), (900_000_000, true), (1_801_000_000, false)] {
            detector.compare(store_us, was_removed);
        }
        assert!(!detector.was_suspended(), "the store's clock was set, and nobody has missed this worker");
        detector.compare(1_802_000_000, true);
        assert!(!detector.was_suspended(), "the store has lost its memory");
        detector.compare(2_703_000_000, true);
        assert!(detector.was_suspended(), "the store's clock went on, and others have removed this worker");
    }
    #[test]
    fn all_loops_of_a_worker_come_to_one_result() {
        let clock = Arc::new(ManualClock::at_us(1));
        let worker = SuspendDetector::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let scheduler = worker.clone();
        // The scheduler waits, and the worker's loop looks every second.
        for _ in 0..50 {
            clock.advance(Duration::from_secs(1));
            assert!(!worker.was_suspended());
        }
        clock.advance(LONGEST_SUSPENSION - Duration::from_secs(30));
        assert_eq!((scheduler.was_suspended(), worker.was_suspended()), (false, false));
        clock.advance(LONGEST_SUSPENSION + Duration::from_secs(1));
        assert_eq!((worker.was_suspended(), scheduler.was_suspended()), (true, true));
    }
}
