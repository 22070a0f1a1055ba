//! What fleets go through. The bounds are those of the model that the algorithm was found with, with what it measured well below them.

use super::{Fleet, LEASE, MS, SECOND, Us, fewest_moves};

/// What 99 of 100 are at most.
fn p99(times: &[Us]) -> Us {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Fleet {
    /// At rest a worker sends two heartbeats and one call each second, whatever the number of workers, and nothing changes.
    fn rest(&mut self, time: Us) {
        self.reset();
        self.go(time);
        let each = self.figures.calls as f64 / self.alive().count() as f64 * SECOND as f64 / time as f64;
        assert!((2.9..3.1).contains(&each), "{each} calls per worker and second");
        assert_eq!((self.figures.moves, self.figures.evaluations), (0, 0));
        self.assert_settled();
    }

    /// A join moves as few partitions as the shares allow, and takes one evaluation.
    fn join(&mut self) {
        self.reset();
        let before = self.holdings();
        let newcomer = self.start();
        self.go(2 * SECOND);
        let with_it = [&before[..], &[(0, u64::from(self.workers[newcomer].slots))]].concat();
        assert_eq!(self.figures.moves, fewest_moves(&with_it, self.partitions), "moves of a join");
        assert_eq!(self.figures.evaluations, 1);
        // With many workers on few partitions its share may be none.
        let first = self.workers[newcomer].first_read_after.unwrap_or_default();
        assert!(first <= 300 * MS, "the first partition after {first} us");
        self.assert_settled();
    }

    /// The same for a leave.
    fn one_leaves(&mut self) {
        self.reset();
        let leaver = self.any();
        let left = self.workers[leaver].owned.len();
        self.leave(leaver);
        let rest = self.holdings();
        self.go(2 * SECOND);
        assert_eq!(self.figures.moves, left + fewest_moves(&rest, self.partitions), "moves of a leave");
        assert_eq!(self.figures.evaluations, 1);
        self.assert_settled();
    }

    fn one_dies(&mut self) {
        self.reset();
        let victim = self.any();
        self.kill(victim);
        let wait = self.rng.u64(2_500 * MS..3_500 * MS);
        self.go(wait);
        assert_eq!(self.figures.evaluations, 1);
        self.assert_settled();
    }

    fn assert_taken_over(takeovers: &[Us], after_notice: &[Us]) {
        let (p99, last) = (p99(takeovers), after_notice.iter().max().copied().unwrap_or_default());
        assert!(p99 <= 1_700 * MS, "{} partitions of the dead are read again after {p99} us", takeovers.len());
        assert!(last <= SECOND, "a partition is read again {last} us after its reader was declared dead");
    }

    /// Workers that die are found, and their partitions read, within 1.7 s.
    fn deaths(&mut self, count: usize) {
        let (mut takeovers, mut after_notice) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.one_dies();
            takeovers.append(&mut self.figures.takeovers);
            after_notice.append(&mut self.figures.after_notice);
            self.start();
            let wait = self.rng.u64(SECOND..2 * SECOND);
            self.go(wait);
            self.assert_settled();
        }
        Self::assert_taken_over(&takeovers, &after_notice);
    }

    /// One that dies every 2 s, and begins anew.
    fn crash_loop(&mut self, count: usize) {
        self.reset();
        for _ in 0..count {
            let victim = self.start();
            self.go(2 * SECOND);
            self.kill(victim);
        }
        self.go(3 * SECOND);
        Self::assert_taken_over(&self.figures.takeovers, &self.figures.after_notice);
        self.assert_settled();
    }

    fn half_dies(&mut self) {
        self.reset();
        for _ in 0..self.alive().count() / 2 {
            let victim = self.any();
            self.kill(victim);
        }
        self.go(4 * SECOND);
        Self::assert_taken_over(&self.figures.takeovers, &self.figures.after_notice);
        self.assert_settled();
    }

    /// One that stands still beyond its lease loses its partitions, and reads none of them when it goes on. Its sockets are open, so it is
    /// not declared dead.
    fn one_stands_still(&mut self, time: Us) {
        self.reset();
        let (at, owned) = self.any_owner();
        let before = self.workers.len();
        self.stand_still(at, time);
        self.go(LEASE + SECOND);
        let taken = owned.iter().filter(|&&partition| self.readers[partition as usize].is_some()).count();
        assert_eq!(taken, owned.len(), "others have taken over");
        self.go(time - LEASE + 3 * SECOND);
        assert_eq!(self.workers.len(), before, "nobody begins anew");
        self.assert_settled();
    }

    fn any_owner(&mut self) -> (usize, Vec<i32>) {
        loop {
            let at = self.any();
            if !self.workers[at].owned.is_empty() {
                return (at, self.workers[at].owned.keys().copied().collect());
            }
        }
    }

    /// A store that was emptied gives each partition back to its reader. A newcomer who comes first gets no more than its share.
    fn is_emptied(&mut self, restarts: bool) {
        self.reset();
        let before = self.holdings();
        if restarts {
            self.restart_empty(300 * MS);
        } else {
            self.empty();
        }
        let newcomer = self.start();
        self.go(LEASE + 2 * SECOND);
        let with_it = [&before[..], &[(0, u64::from(self.workers[newcomer].slots))]].concat();
        let (moves, needed) = (self.figures.moves, fewest_moves(&with_it, self.partitions));
        // Shares are worked out before all are back, so an odd partition may move that could have stayed.
        assert!(
            (needed..=needed + 1).contains(&moves),
            "{moves} moves of {needed}, when the store was emptied and one has joined"
        );
        self.assert_settled();
    }
}

fn go_through_all(workers: usize, partitions: u32, rounds: usize) {
    let mut fleet = Fleet::new(workers, partitions);
    fleet.rest(10 * SECOND);
    for _ in 0..rounds {
        fleet.join();
    }
    for _ in 0..rounds {
        fleet.one_leaves();
    }
    fleet.deaths(rounds);
    fleet.crash_loop(rounds);
    fleet.one_stands_still(LEASE + 2 * SECOND);
    fleet.one_stands_still(2 * LEASE + 2 * SECOND);
    fleet.is_emptied(false);
    fleet.is_emptied(true);
    fleet.half_dies();
    fleet.rest(3 * SECOND);
}

#[test]
fn five_workers_share_twelve_partitions() {
    for _ in 0..25 {
        go_through_all(5, 12, 10);
    }
}

#[test]
fn fifty_workers_share_two_hundred_partitions() {
    for _ in 0..4 {
        go_through_all(50, 200, 10);
    }
}

#[test]
fn a_thousand_workers_share_ten_thousand_partitions() {
    let mut fleet = Fleet::new(1_000, 10_000);
    fleet.rest(2 * SECOND);
    fleet.join();
    fleet.one_leaves();
    fleet.deaths(1);
    fleet.half_dies();
}

#[test]
fn a_thousand_workers_keep_their_partitions_when_the_store_is_emptied() {
    let mut fleet = Fleet::new(1_000, 10_000);
    fleet.is_emptied(true);
}
