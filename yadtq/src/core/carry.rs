//! When the oldest unfinished record of a partition is published again at the end of its topic, so that it no longer holds back the
//! commit of what has ended behind it.

use std::time::Duration;

/// The age from which a record is carried if something has ended behind it.
const LONG: Duration = Duration::from_secs(60);

/// The offsets between the oldest unfinished record of a partition and the newest one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Number of its offsets.
    pub size: u64,
    /// How many of them have ended.
    pub done: u64,
    /// The size at which nothing more is read.
    pub limit: u64,
}

impl Window {
    /// Whether the head is about to keep others from being read: the window is over 90 % full, and over 98 % of it has ended. So a
    /// window that is full of tasks that wait, as any backlog makes it, carries nothing.
    #[must_use]
    pub(crate) fn is_held_up(self) -> bool {
        self.size * 10 > self.limit * 9 && self.done * 100 > self.size * 98
    }

    /// Whether a head that was read this long ago is carried for its age. A copy of it is read anew, so it is carried once in that
    /// time at most.
    #[must_use]
    pub(crate) fn is_held_long(self, age: Duration) -> bool {
        self.done > 0 && age >= LONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(size: u64, done: u64) -> Window {
        Window { size, done, limit: 10_000 }
    }

    #[test]
    fn a_full_window_of_ended_tasks_is_held_up() {
        assert!(window(9_001, 9_000).is_held_up() && window(10_000, 9_801).is_held_up());
        assert!(!window(9_000, 8_999).is_held_up(), "there is room");
        assert!(!window(10_000, 9_800).is_held_up(), "much of it still waits or runs");
        assert!(!window(0, 0).is_held_up());
    }

    #[test]
    fn an_old_head_is_carried_only_if_it_holds_something_back() {
        assert!(window(2, 1).is_held_long(LONG));
        assert!(!window(2, 1).is_held_long(LONG - Duration::from_millis(1)));
        assert!(!window(10_000, 0).is_held_long(LONG * 100));
    }
}
