//! How many partitions each worker should own. The only step that looks at all members of a topic.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use super::Topic;
use crate::core::names::WorkerId;

/// Members for each of which shares are left alone for a ms after they were worked out.
pub(crate) const MEMBERS_PER_MS: usize = 10;

impl Topic {
    /// Works out everybody's share: the quota by slots, rounded down, and one more for as many members as there are odd partitions. Those
    /// go first to the members that have them already, then by what was cut off, then by id. Runs when something has changed, and
    /// then not again for 0.1 ms for each member.
    pub(super) fn evaluate(&mut self, now_ms: u64, wake: &mut BTreeSet<WorkerId>) {
        self.is_changed = false;
        self.evaluate_from_ms = now_ms + wide(self.members.len() / MEMBERS_PER_MS);
        #[cfg(test)]
        {
            self.evaluations += 1;
        }
        self.work_out_shares();
        self.short.clear();
        for (worker, member) in &self.members {
            if member.owns.len() < member.share {
                self.short.insert(Arc::clone(worker));
            }
            if member.owns.len() > member.share {
                wake.insert(Arc::clone(worker));
            }
        }
        self.wake_short(wake);
    }

    fn work_out_shares(&mut self) {
        let total: u64 = self.members.values().map(|member| u64::from(member.slots)).sum();
        let mut left = u64::from(self.partitions);
        let mut odd = Vec::new();
        for (worker, member) in &mut self.members {
            let quota = u64::from(self.partitions) * u64::from(member.slots);
            let share = quota.checked_div(total).unwrap_or(0);
            let rest = quota - share * total;
            left -= share;
            member.share = usize::try_from(share).unwrap_or(usize::MAX);
            if rest > 0 && total > 0 {
                odd.push((member.owns.len() <= member.share, Reverse(rest), Arc::clone(worker)));
            }
        }
        odd.sort_unstable();
        for (_, _, worker) in odd.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            if let Some(member) = self.members.get_mut(&worker) {
                member.share += 1;
            }
        }
    }

    /// Wakes as many members with less than their share as there are free partitions, and the next time others first.
    fn wake_short(&mut self, wake: &mut BTreeSet<WorkerId>) {
        let is_after = |worker: &&WorkerId| self.last_woken.as_ref().is_none_or(|last| *worker > last);
        let (after, until): (Vec<_>, Vec<_>) = self.short.iter().cloned().partition(|worker| is_after(&worker));
        let chosen: Vec<WorkerId> = after.into_iter().chain(until).take(self.free.len()).collect();
        if let Some(last) = chosen.last() {
            self.last_woken = Some(Arc::clone(last));
        }
        wake.extend(chosen);
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
