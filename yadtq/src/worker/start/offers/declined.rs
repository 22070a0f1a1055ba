//! Records that others have declined: for a while they are not offered again.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::{wire::offer::Place, worker::job::Job};

/// How long a record that was declined is not offered again.
const REST: Duration = Duration::from_secs(1);

/// The records that were declined lately.
#[derive(Default)]
pub(in crate::worker) struct Declined {
    places: HashSet<Place>,
    /// When each may be offered again, in order.
    ends: VecDeque<(Instant, Place)>,
}

impl Declined {
    /// The record was declined.
    pub(in crate::worker) fn add(&mut self, place: Place, now: Instant) {
        self.expire(now);
        if self.places.insert(place) {
            self.ends.push_back((now + REST, place));
        }
    }

    /// Forgets those that may be offered again.
    pub(in crate::worker) fn expire(&mut self, now: Instant) {
        while self.ends.front().is_some_and(|(at, _)| *at <= now) {
            self.ends.pop_front().map(|(_, place)| self.places.remove(&place));
        }
    }

    /// Whether the record must not be offered now.
    pub(super) fn contains(&self, job: &Job) -> bool {
        !self.places.is_empty() && self.places.contains(&job.at.into())
    }
}
