//! Who lives: heartbeats, and the death notice.
//!
//! The kernel closes the sockets of a killed process, so the store sees within milliseconds that nobody subscribes to its control
//! channel. With each heartbeat a worker looks along the ring of all workers, in the order of their ids, until it has seen
//! [`LIVE`] live ones. Ids are random, so workers that were started together are no neighbours.
//!
//! ```text
//!            not subscribed, seen by a heartbeat          again, NOTICE_MS later
//!  lives ─────────────────────────────────────► suspect ────────────────────────► declared dead
//!    ▲                                             │
//!    └── its own heartbeat; or it is subscribed ───┘
//! ```
//! - Only a worker whose present connection dates from before the other's last heartbeat may declare it dead by this rule. So after a
//!   restart of the store nobody is accused.
//! - Of a worker that says that it may not subscribe (a Redis user without channels) only the age of its heartbeats counts.
//! - Whoever has not sent a heartbeat for two leases, since the caller's connection is up, is declared dead too.
//! - A caller whose last answered heartbeat is older than a lease counts from this one anew: it was away, or the store's clock has
//!   gone forward, and then nobody is late.
//! - An id that was declared dead, or has left, is used up: its next heartbeat learns so.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{names::WorkerId, ownership::USED_UP_MS};

/// Time between two looks that find no subscription, in ms.
pub(crate) const NOTICE_MS: u64 = 750;
/// Time between two heartbeats, in ms.
pub(crate) const BEAT_MS: u64 = 500;
/// A heartbeat looks along the ring until it has seen this many live workers.
pub(crate) const LIVE: usize = 4;
/// The most workers that a heartbeat looks at.
pub(crate) const WALK: usize = 31;

/// What the store keeps of all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    /// The last heartbeat of each, in ms.
    beats: BTreeMap<WorkerId, u64>,
    /// Whose subscription is missing, and since when that is known.
    suspects: BTreeMap<WorkerId, u64>,
    /// Who says that it may not subscribe.
    deaf: BTreeSet<WorkerId>,
    /// Used up ids, with the time.
    dead: BTreeMap<WorkerId, u64>,
}

/// One heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Beat<'a> {
    /// Who lives.
    pub worker: &'a WorkerId,
    /// The store's time in the first answered heartbeat over the present connection; `None` before that.
    pub since_ms: Option<u64>,
    /// The store's time in the last answered heartbeat; 0 before that: then the dead of the last two leases are news.
    pub answered_ms: u64,
    /// The worker's lease.
    pub lease_ms: u64,
    /// Whether the worker may subscribe to its control channel, as far as it knows.
    pub may_listen: bool,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// The worker's id is used up.
    pub is_gone: bool,
    /// Nothing was known of the worker.
    pub is_new: bool,
    /// Whether the worker's own control channel is subscribed, or cannot be.
    pub is_subscribed: bool,
    /// Declared dead by this heartbeat, with their last heartbeat in ms.
    pub lost: Vec<(WorkerId, u64)>,
    /// Declared dead, or left, since the last answered heartbeat, those included.
    pub dead: BTreeSet<WorkerId>,
    /// When somebody may be declared dead, in ms from now.
    pub look_again_ms: Option<u64>,
}

impl Beat<'_> {
    /// Whether so much time has passed since the last answered heartbeat that nobody can be called late.
    pub(crate) fn was_away(&self, now_ms: u64) -> bool {
        self.answered_ms > 0 && now_ms.saturating_sub(self.answered_ms) > self.lease_ms
    }
}

/// A worker says that it lives, and looks at those behind it in the ring.
pub(crate) fn beat(ring: &mut Ring, by: &Beat<'_>, is_subscribed: impl Fn(&str) -> bool, now_ms: u64) -> Pulse {
    if ring.is_dead(by.worker) {
        return Pulse { is_gone: true, ..Pulse::default() };
    }
    let is_new = ring.beats.insert(Arc::clone(by.worker), now_ms).is_none();
    ring.suspects.remove(by.worker);
    match by.may_listen {
        true => ring.deaf.remove(by.worker),
        false => ring.deaf.insert(Arc::clone(by.worker)),
    };
    let since_ms = by.since_ms.filter(|_| !by.was_away(now_ms)).unwrap_or(now_ms);
    let has_channel = !by.may_listen || is_subscribed(by.worker);
    let mut pulse = Pulse { is_new, is_subscribed: has_channel, ..Pulse::default() };
    let mut live = 0;
    for (worker, beaten_ms) in ring.behind(by.worker) {
        let is_old = now_ms.saturating_sub(beaten_ms.max(since_ms)) > 2 * by.lease_ms;
        if is_subscribed(&worker) || !is_old && ring.deaf.contains(&worker) {
            if is_subscribed(&worker) {
                ring.suspects.remove(&worker);
                ring.deaf.remove(&worker);
            }
            live += 1;
            if live == LIVE {
                break;
            }
            continue;
        }
        let first_ms = *ring.suspects.entry(Arc::clone(&worker)).or_insert(now_ms);
        let is_witness = since_ms < beaten_ms;
        if is_old || is_witness && now_ms.saturating_sub(first_ms) >= NOTICE_MS {
            pulse.lost.push((worker, beaten_ms));
        } else if is_witness && now_ms.saturating_sub(beaten_ms) > BEAT_MS {
            let again_ms = (first_ms + NOTICE_MS).saturating_sub(now_ms);
            pulse.look_again_ms = Some(pulse.look_again_ms.map_or(again_ms, |earlier| earlier.min(again_ms)));
        }
    }
    for (worker, _) in &pulse.lost {
        ring.remove(worker, now_ms);
    }
    // Whoever declared somebody dead just before its own death may not have passed that on.
    let answered_ms = if by.answered_ms == 0 { now_ms.saturating_sub(2 * by.lease_ms) } else { by.answered_ms };
    let is_news = |(_, at): &(&WorkerId, &u64)| **at >= answered_ms;
    pulse.dead = ring.dead.iter().filter(is_news).map(|(worker, _)| Arc::clone(worker)).collect();
    pulse
}

impl Ring {
    /// Takes a worker out, and uses up its id.
    pub(crate) fn remove(&mut self, worker: &WorkerId, now_ms: u64) {
        self.beats.remove(worker);
        self.suspects.remove(worker);
        self.deaf.remove(worker);
        self.dead.retain(|_, since| *since + USED_UP_MS > now_ms);
        self.dead.insert(Arc::clone(worker), now_ms);
    }

    /// Whether the worker was declared dead, or has left.
    pub(crate) fn is_dead(&self, worker: &str) -> bool {
        self.dead.contains_key(worker)
    }

    /// Those behind a worker in the ring, with their last heartbeats.
    fn behind(&self, worker: &WorkerId) -> Vec<(WorkerId, u64)> {
        let after = self.beats.range::<WorkerId, _>((Bound::Excluded(worker), Bound::Unbounded));
        let ring = after.chain(self.beats.range::<WorkerId, _>(..worker));
        ring.take(WALK).map(|(worker, at)| (Arc::clone(worker), *at)).collect()
    }
}
