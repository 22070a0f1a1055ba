//! Limits in memory.

use std::{collections::HashMap, sync::Arc};

use crate::{
    core::limits::{self, Admission, Pace, Places},
    store::{Entry, Occupation, Place},
};

/// How far each limit is used; what is used up no longer is forgotten.
#[derive(Debug, Default)]
pub(super) struct Limits {
    paces: HashMap<Arc<str>, Pace>,
    places: HashMap<Arc<str>, Places>,
    /// How many there may be before they are looked through.
    sweep_at: usize,
}

impl Limits {
    pub(super) fn admit(&mut self, Entry { limit, rate, turn }: &Entry, now_us: u64) -> Admission {
        self.sweep(now_us);
        limits::admit(self.paces.entry(Arc::clone(limit)).or_default(), rate, *turn, now_us)
    }

    pub(super) fn occupy(&mut self, run: &Occupation, lease_ms: u64, now_ms: u64) -> Option<u64> {
        self.sweep(now_ms * 1_000);
        let places = self.places.entry(Arc::clone(&run.place.limit)).or_default();
        limits::occupy(places, &run.place.run, run.most, run.holds, lease_ms, now_ms)
    }

    pub(super) fn vacate(&mut self, place: &Place) {
        if let Some(places) = self.places.get_mut(&place.limit) {
            places.runs.remove(&place.run);
        }
    }

    /// There is one of each argument, so there may be many.
    fn sweep(&mut self, now_us: u64) {
        const FEW: usize = 1_024;
        if self.paces.len() + self.places.len() > self.sweep_at.max(FEW) {
            self.paces.retain(|_, pace| pace.reserved_us.max(pace.started_us) > now_us);
            let is_used = |until_ms: u64| until_ms > now_us / 1_000;
            self.places
                .retain(|_, places| is_used(places.line_ms) || places.runs.values().any(|&until| is_used(until)));
            self.sweep_at = 2 * (self.paces.len() + self.places.len());
        }
    }
}
