//! Which delayed tasks of one partition are in memory, and which of them is due next.
//!
//! ```text
//!   due:  now ──── soon, in memory ────► horizon ──── later, only in the log ────►
//! ```
//! Records are ordered by (due time, offset). Those before the horizon are in memory; of the later ones only the
//! earliest due time and the lowest offset are known. When that time comes near, a scan of the log finds the next ones,
//! from that offset on, while new records still arrive at the tail. A full window drops its latest records and moves its
//! horizon back. So memory use follows the limits and not the backlog.
//!
//! A key stands for one `seq` of one task. A record without a value says that the task under this key was fired or
//! cancelled. A later record with a value under the same key is valid again.
//!
//! A scan reads records before it reads their deletions. So the window notes which keys were deleted or replaced, as far
//! as there is room. A scan releases at once the overdue tasks of which it knows all deletions: a backlog that is due at once is
//! read once. Others it releases when it has read everything; then a dead record costs room, and never more than that.

use std::{
    collections::{BTreeMap, HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
};

/// The limits of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    /// How far ahead of now the window reaches, in ms.
    pub ahead_ms: u64,
    /// Largest number of records.
    pub records: usize,
    /// Largest total size in bytes. It does not apply to a single record. A scan under way takes as much again.
    pub bytes: usize,
    /// Largest total size in bytes of the notes about deleted keys.
    pub note_bytes: usize,
}

impl WindowLimits {
    fn half(self) -> Self {
        Self { records: (self.records / 2).max(1), bytes: self.bytes / 2, ..self }
    }
}

/// A record of the log.
#[derive(Clone, Debug)]
pub(crate) struct Record<K, V> {
    /// Stands for one `seq` of one task.
    pub key: K,
    /// The offset in the log.
    pub offset: i64,
    /// The size in bytes.
    pub size: usize,
    /// When the task is due, in ms since the Unix epoch, and the task. `None`: the task of this key was fired or
    /// cancelled.
    pub value: Option<(u64, V)>,
}

/// Due time in ms since the Unix epoch, and offset: the order of the records.
type DueKey = (u64, i64);

#[derive(Clone, Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    size: usize,
}

/// The delayed tasks of one partition that are due soon.
#[derive(Debug)]
pub(crate) struct Window<K, V> {
    limits: WindowLimits,
    soon: Buffer<K, V>,
    /// Tasks beyond the horizon that were found since the scan under way began, and of which no deletion is to come.
    found: Buffer<K, V>,
    scan: Option<Scan<K, V>>,
    /// Tasks that were popped, and whose deletion is not in the log yet.
    popped: HashMap<K, Popped>,
    /// Tasks that were fired, and whose deletion is in the log but has not arrived at the tail yet.
    leaving: HashMap<K, DueKey>,
    /// The lowest offset of the popped tasks that were dropped, and are still to be fired.
    lost: Option<i64>,
    outdated: Outdated,
    /// Keys of the records that have been read. Kept while the log is read for the first time.
    seen: Option<Seen>,
    /// The offset after the last record that arrived at the tail. `None`: unknown.
    tail: Option<i64>,
}

/// A task that was popped.
#[derive(Clone, Copy, Debug)]
struct Popped {
    due_key: DueKey,
    /// Whether its deletion has arrived at the tail.
    is_deleted: bool,
}

/// The records before a horizon, and where others are.
#[derive(Debug)]
struct Buffer<K, V> {
    entries: BTreeMap<DueKey, Entry<K, V>>,
    keys: HashMap<K, DueKey>,
    bytes: usize,
    horizon: DueKey,
    beyond: Option<Beyond>,
}

/// Where the records beyond a horizon are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beyond {
    /// No record is due earlier.
    due: u64,
    /// No record has a lower offset.
    offset: i64,
}

/// A scan of the log that is under way.
#[derive(Debug)]
struct Scan<K, V> {
    buffer: Buffer<K, V>,
    /// The horizon of the window when the scan began: earlier records are in memory, or were fired.
    from: DueKey,
    /// The end of the tail when the scan began.
    end: Option<i64>,
    /// The offset after the last record that the scan has read.
    position: i64,
    /// When the scan began. What was due by then is released at once if all deletions of it are known.
    began_ms: u64,
}

/// Keys that were deleted or replaced: earlier records of them mean nothing. Kept as two hashes of 64 bits each, so that
/// a collision is next to impossible.
#[derive(Debug, Default)]
struct Outdated {
    hashes: Hashes,
    /// By key: no record up to this offset means anything.
    until: HashMap<(u64, u64), i64>,
    /// What is above this offset is noted completely.
    complete_from: i64,
    /// Of the fired tasks that were not noted: the latest due time, and the highest offset.
    fired: Option<(DueKey, i64)>,
}

#[derive(Debug, Default)]
struct Hashes {
    first: RandomState,
    second: RandomState,
}

impl Hashes {
    fn of(&self, key: &[u8]) -> (u64, u64) {
        (self.first.hash_one(key), self.second.hash_one(key))
    }
}

impl Outdated {
    /// What one note takes at most: 24 bytes and 1 of the map, of which 7/16 are used after it has grown.
    const NOTE_BYTES: usize = 58;

    fn has(&self, key: &[u8], offset: i64) -> bool {
        !self.until.is_empty() && self.until.get(&self.hashes.of(key)).is_some_and(|&until| offset <= until)
    }

    /// Notes a deletion or a replacement at this offset, if there is room.
    fn note(&mut self, key: &[u8], offset: i64, most: usize) {
        let key = self.hashes.of(key);
        if self.until.len() < most || self.until.contains_key(&key) {
            self.until.insert(key, offset - 1);
        } else {
            self.complete_from = self.complete_from.max(offset + 1);
        }
    }

    /// Notes the deletion of a task that was fired. These leave half of the room to others, because a due time can stand
    /// for them too. They are forgotten with the task's own record, which is long before their deletion.
    fn note_fired(&mut self, key: &[u8], due_key: DueKey, offset: i64, most: usize) {
        let hashes = self.hashes.of(key);
        if self.until.contains_key(&hashes) {
            // The log has had another record of it.
            return self.note(key, offset, most);
        }
        if self.until.len() < most / 2 {
            self.until.insert(hashes, due_key.1);
            return;
        }
        let (latest, until) = self.fired.unwrap_or((due_key, due_key.1));
        self.fired = Some((latest.max(due_key), until.max(due_key.1)));
    }

    /// Forgets what is about records below this offset alone.
    fn prune(&mut self, floor: i64) {
        self.until.retain(|_, until| *until >= floor);
        self.until.shrink_to(self.until.len() * 2);
        self.fired = self.fired.filter(|&(_, until)| until >= floor);
    }

    /// Whether the deletions that have arrived of a record at this offset are noted, if it is not before this horizon.
    fn is_complete(&self, offset: i64, horizon: DueKey) -> bool {
        let was_not_fired = |(latest, until)| latest < horizon || until < offset;
        self.complete_from <= offset && self.fired.is_none_or(was_not_fired)
    }
}

/// A Bloom filter. It spares the notes about deletions whose records are gone.
#[derive(Debug)]
struct Seen(Vec<u64>);

impl Seen {
    const BITS: u64 = 1 << 23;

    fn new() -> Self {
        Self(vec![0; (Self::BITS / 64) as usize])
    }

    fn bits((first, second): (u64, u64)) -> impl Iterator<Item = (usize, u64)> {
        [first, second, first.rotate_left(32) ^ second].into_iter().map(|hash| {
            let bit = hash % Self::BITS;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    /// Adds a key. Whether it may have been added before.
    fn insert(&mut self, hashes: (u64, u64)) -> bool {
        Self::bits(hashes).fold(true, |had, (word, bit)| {
            let had_bit = self.0[word] & bit != 0;
            self.0[word] |= bit;
            had && had_bit
        })
    }

    fn may_have(&self, hashes: (u64, u64)) -> bool {
        Self::bits(hashes).all(|(word, bit)| self.0[word] & bit != 0)
    }
}

impl<K: AsRef<[u8]> + Clone + Eq + Hash, V> Window<K, V> {
    /// A window over a log that will be read from its start.
    #[must_use]
    pub(crate) fn new(limits: WindowLimits, now_ms: u64) -> Self {
        Self {
            limits,
            soon: Buffer::before((now_ms.saturating_add(limits.ahead_ms), 0)),
            found: Buffer::before((u64::MAX, i64::MAX)),
            scan: None,
            popped: HashMap::new(),
            leaving: HashMap::new(),
            lost: None,
            outdated: Outdated::default(),
            seen: Some(Seen::new()),
            tail: None,
        }
    }

    /// Sets other limits. What is too much by these is dropped.
    pub(crate) fn limit(&mut self, limits: WindowLimits) {
        self.limits = limits;
        let Self { soon, scan, .. } = self;
        soon.cut(limits, |due_key, entry| {
            if let Some(Scan { buffer, .. }) = scan {
                buffer.put(due_key, entry, limits.half(), |_, _| ());
            }
        });
    }

    /// Takes a record that arrived at the tail.
    pub(crate) fn tail(&mut self, record: Record<K, V>) {
        let Record { key, offset, size, value } = record;
        if self.tail.replace(offset + 1).is_none() && self.outdated.complete_from == i64::MAX {
            self.outdated.complete_from = offset;
        }
        let was_here = self.remove(&key);
        let may_be_older = was_here || self.was_seen(key.as_ref(), value.is_some());
        let (most, popped, leaving) = (self.most_notes(), self.popped.get_mut(&key), self.leaving.remove(&key));
        let fired = popped.map(|popped| {
            popped.is_deleted |= value.is_none();
            popped.due_key
        });
        match fired.or(leaving) {
            Some(due_key) if value.is_none() => self.outdated.note_fired(key.as_ref(), due_key, offset, most),
            // One that was popped is in the log too.
            Some(_) => self.outdated.note(key.as_ref(), offset, most),
            None if may_be_older => self.outdated.note(key.as_ref(), offset, most),
            None => {}
        }
        if let Some((due, value)) = value {
            self.put((due, offset), Entry { key, value, size });
        }
    }

    fn most_notes(&self) -> usize {
        self.limits.note_bytes / Outdated::NOTE_BYTES
    }

    /// Number of fired tasks that are remembered until their deletions arrive at the tail. Any more may be fired twice if a
    /// scan reads them before that.
    fn most_leaving(&self) -> usize {
        self.most_notes() / 4
    }

    /// Whether the log may have an earlier record of the key. Not known once it was read.
    fn was_seen(&mut self, key: &[u8], has_value: bool) -> bool {
        let Some(seen) = &mut self.seen else {
            return !has_value;
        };
        let hashes = self.outdated.hashes.of(key);
        if has_value { seen.insert(hashes) } else { seen.may_have(hashes) }
    }

    fn remove(&mut self, key: &K) -> bool {
        let scanned = self.scan.as_mut().is_some_and(|scan| scan.buffer.remove(key));
        self.soon.remove(key) | self.found.remove(key) | scanned
    }

    fn put(&mut self, due_key: DueKey, entry: Entry<K, V>) {
        let Self { limits, soon, found, scan, .. } = self;
        let half = limits.half();
        match scan {
            // What is beyond the horizon need not wait for the end of the scan.
            Some(Scan { buffer, .. }) => soon.put(due_key, entry, *limits, |due_key, entry| {
                if due_key < buffer.horizon && found.has_room_for(entry.size, half) {
                    found.insert(due_key, entry);
                } else {
                    buffer.put(due_key, entry, half, |_, _| ());
                }
            }),
            None => soon.put(due_key, entry, *limits, |_, _| ()),
        }
    }

    /// Notes that the whole log was read once. From now on tasks may be fired.
    pub(crate) fn loaded(&mut self) {
        self.seen = None;
        self.prune();
    }

    /// Removes the earliest task and returns it, if it is due. The task is remembered until [`fired`](Self::fired) or
    /// [`lose`](Self::lose).
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<V> {
        let earliest = |buffer: &Buffer<K, V>| buffer.entries.first_key_value().map(|(&due_key, _)| due_key);
        let buffer = match (earliest(&self.soon), earliest(&self.found)) {
            (Some(soon), Some(found)) if found < soon => &mut self.found,
            (None, Some(_)) => &mut self.found,
            _ => &mut self.soon,
        };
        let entry = buffer.entries.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        let due_key = *entry.key();
        let Entry { key, value, size } = entry.remove();
        buffer.keys.remove(&key);
        buffer.bytes -= size;
        self.popped.insert(key, Popped { due_key, is_deleted: false });
        Some(value)
    }

    /// A task that was popped is fired, and its deletion is in the log.
    pub(crate) fn fired(&mut self, key: &K) {
        let popped = self.popped.remove(key).filter(|popped| !popped.is_deleted);
        // The deletion of a record without a key never arrives.
        if let Some(Popped { due_key, .. }) = popped.filter(|_| self.leaving.len() < self.most_leaving()) {
            self.leaving.insert(key.clone(), due_key);
        }
    }

    /// A task that was popped could not be fired, and is dropped from memory. [`reset`](Self::reset) finds it again.
    pub(crate) fn lose(&mut self, key: &K) {
        if let Some(Popped { due_key: (_, offset), .. }) = self.popped.remove(key) {
            self.lost = Some(self.lost.map_or(offset, |lost| lost.min(offset)));
        }
    }

    /// Whether tasks were lost.
    #[must_use]
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// A window over a log of which the tail arrives from anywhere on. Scans find what came before.
    #[must_use]
    pub(crate) fn unread(limits: WindowLimits) -> Self {
        let mut window = Self { seen: None, ..Self::new(limits, 0) };
        window.reset(false);
        window
    }

    /// Forgets which tasks are due next, so that scans find them again. `is_tail_known`: no record of the tail was missed.
    pub(crate) fn reset(&mut self, is_tail_known: bool) {
        let floor = self.floor().unwrap_or(0);
        if !is_tail_known {
            (self.tail, self.outdated.complete_from, self.leaving) = (None, i64::MAX, HashMap::new());
        }
        self.outdated.prune(floor);
        (self.scan, self.lost) = (None, None);
        self.found = Buffer::before((u64::MAX, i64::MAX));
        self.soon = Buffer::before((0, i64::MIN));
        self.soon.note_beyond((0, floor));
    }

    /// When the next task or scan is due, in ms since the Unix epoch. `None`: there is nothing to do.
    #[must_use]
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let first = |buffer: &Buffer<K, V>| buffer.entries.first_key_value().map(|(due_key, _)| due_key.0);
        let scan = if self.scan.is_none() { self.soon.beyond } else { None };
        // A scan that has to wait for room becomes due when enough tasks have been fired.
        let scan = scan.filter(|_| self.soon.has_room(self.limits));
        let scan = scan.map(|beyond| beyond.due.saturating_sub(self.limits.ahead_ms / 2));
        first(&self.soon).into_iter().chain(first(&self.found)).chain(scan).min()
    }

    /// Number of tasks in memory.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.buffers().map(|buffer| buffer.entries.len()).sum()
    }

    /// The size of all that is in memory, in bytes: the records by their sizes, and the notes about keys.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, |seen| seen.0.len() * size_of::<u64>());
        let notes = self.outdated.until.capacity() * 8 / 7 * 25;
        self.buffers().map(|buffer| buffer.bytes).sum::<usize>() + notes + seen
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer<K, V>> {
        [&self.soon, &self.found].into_iter().chain(self.scan.as_ref().map(|scan| &scan.buffer))
    }

    /// No task that is still to be fired has its record below this offset. `None`: nothing has been read.
    #[must_use]
    pub(crate) fn floor(&self) -> Option<i64> {
        let entries = self.buffers().flat_map(|buffer| buffer.entries.keys().map(|due_key| due_key.1));
        let beyond = |buffer: &Buffer<K, V>| buffer.beyond.map(|beyond| beyond.offset);
        let scan = self.scan.as_ref();
        // What a scan has read is in memory, or beyond its own horizon.
        let unread = beyond(&self.soon).map(|offset| scan.map_or(offset, |scan| offset.max(scan.position)));
        let beyond = unread.into_iter().chain(beyond(&self.found)).chain(scan.and_then(|scan| beyond(&scan.buffer)));
        let popped = self.popped.values().map(|popped| popped.due_key.1);
        entries.chain(beyond).chain(popped).chain(self.lost).chain(self.tail).min()
    }

    /// Forgets notes that are not needed any more.
    pub(crate) fn prune(&mut self) {
        if let Some(floor) = self.floor() {
            self.outdated.prune(floor);
        }
    }

    /// Whether a scan is due or under way.
    #[must_use]
    pub(crate) fn wants_scan(&self, now_ms: u64) -> bool {
        let near = now_ms.saturating_add(self.limits.ahead_ms / 2);
        let is_due = self.soon.beyond.is_some_and(|beyond| beyond.due <= near);
        match &self.scan {
            // What is due is on its way out, and then there is room.
            Some(_) => {
                let is_due = self.found.entries.first_key_value().is_some_and(|(due_key, _)| due_key.0 <= now_ms);
                !is_due || self.found.has_room(self.limits.half())
            }
            None => is_due && self.soon.has_room(self.limits),
        }
    }

    /// Begins a scan if one is due, or goes on with the one under way. The caller then reads the log from the returned
    /// offset to its end, calls [`scanned`](Self::scanned) with each record, and [`end_scan`](Self::end_scan) at the end. It
    /// may stop anywhere, and go on later. `None`: no scan is due, or there is no room.
    pub(crate) fn scan(&mut self, now_ms: u64) -> Option<i64> {
        if !self.wants_scan(now_ms) {
            return None;
        }
        let Self { limits, soon, scan, tail, .. } = self;
        let scan = scan.get_or_insert_with(|| {
            let to = (now_ms.saturating_add(limits.ahead_ms), 0).max(soon.horizon);
            let position = soon.beyond.map_or(0, |beyond| beyond.offset);
            Scan { buffer: Buffer::before(to), from: soon.horizon, end: *tail, position, began_ms: now_ms }
        });
        Some(scan.position)
    }

    /// Takes a record that the scan read. `false`: the scan has read all that it has to.
    pub(crate) fn scanned(&mut self, record: Record<K, V>) -> bool {
        let Self { limits, soon, found, scan: Some(scan), popped, leaving, outdated, tail, .. } = self else {
            return false;
        };
        let Record { key, offset, size, value } = record;
        // The rest arrives at the tail.
        if tail.is_some_and(|tail| offset >= tail) {
            return false;
        }
        scan.position = scan.position.max(offset + 1);
        let popped = popped.get(&key).map(|popped| popped.due_key).or_else(|| leaving.get(&key).copied());
        if outdated.has(key.as_ref(), offset) || popped.is_some_and(|due_key| due_key.1 >= offset) {
            return true;
        }
        // What has arrived at the tail is newer, or the same.
        let buffers = [&mut *soon, &mut *found, &mut scan.buffer];
        if buffers.iter().any(|buffer| buffer.keys.get(&key).is_some_and(|due_key| due_key.1 >= offset)) {
            return true;
        }
        buffers.into_iter().for_each(|buffer| _ = buffer.remove(&key));
        let Some((due, value)) = value else { return true };
        // Earlier records are in memory, or their tasks were fired.
        if (due, offset) >= scan.from {
            let entry = Entry { key, value, size };
            // What has come since may have been fired since, without a note.
            let is_sure = outdated.is_complete(offset, scan.from) && scan.end.is_some_and(|end| offset < end);
            if is_sure && due <= scan.began_ms {
                found.insert((due, offset), entry);
            } else {
                scan.buffer.put((due, offset), entry, limits.half(), |_, _| ());
            }
        }
        true
    }

    /// Ends the scan: it has read the log to its end.
    pub(crate) fn end_scan(&mut self) {
        let Some(Scan { buffer, .. }) = self.scan.take() else { return };
        self.soon.horizon = self.soon.horizon.max(buffer.horizon);
        self.soon.beyond = buffer.beyond;
        let found = std::mem::replace(&mut self.found, Buffer::before((u64::MAX, i64::MAX)));
        for (due_key, entry) in found.entries.into_iter().chain(buffer.entries) {
            self.soon.put(due_key, entry, self.limits, |_, _| ());
        }
        self.prune();
    }
}

impl<K: Clone + Eq + Hash, V> Buffer<K, V> {
    fn before(horizon: DueKey) -> Self {
        Self { entries: BTreeMap::new(), keys: HashMap::new(), bytes: 0, horizon, beyond: None }
    }

    fn remove(&mut self, key: &K) -> bool {
        let entry = self.keys.remove(key).and_then(|due_key| self.entries.remove(&due_key));
        self.bytes -= entry.as_ref().map_or(0, |entry| entry.size);
        entry.is_some()
    }

    fn insert(&mut self, due_key: DueKey, entry: Entry<K, V>) {
        self.bytes += entry.size;
        self.keys.insert(entry.key.clone(), due_key);
        self.entries.insert(due_key, entry);
    }

    /// Whether it is half empty.
    fn has_room(&self, limits: WindowLimits) -> bool {
        self.entries.len() * 2 <= limits.records && self.bytes * 2 <= limits.bytes || self.entries.is_empty()
    }

    fn has_room_for(&self, size: usize, limits: WindowLimits) -> bool {
        self.entries.len() < limits.records && self.bytes + size <= limits.bytes
    }

    /// Inserts a record if it is before the horizon. `spill` gets the record if it is not, and the records for which
    /// there is no room.
    fn put(
        &mut self, due_key: DueKey, entry: Entry<K, V>, limits: WindowLimits,
        mut spill: impl FnMut(DueKey, Entry<K, V>),
    ) {
        if due_key >= self.horizon {
            self.note_beyond(due_key);
            return spill(due_key, entry);
        }
        self.insert(due_key, entry);
        self.cut(limits, spill);
    }

    /// Drops the latest records until there is room.
    fn cut(&mut self, limits: WindowLimits, mut spill: impl FnMut(DueKey, Entry<K, V>)) {
        while self.entries.len() > limits.records || self.bytes > limits.bytes && self.entries.len() > 1 {
            let Some((due_key, entry)) = self.entries.pop_last() else { break };
            self.keys.remove(&entry.key);
            self.bytes -= entry.size;
            self.horizon = due_key;
            self.note_beyond(due_key);
            spill(due_key, entry);
        }
    }

    fn note_beyond(&mut self, (due, offset): DueKey) {
        let beyond = self.beyond.get_or_insert(Beyond { due, offset });
        *beyond = Beyond { due: beyond.due.min(due), offset: beyond.offset.min(offset) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LIMITS: WindowLimits = WindowLimits { ahead_ms: 100, records: 6, bytes: 1_000, note_bytes: 1_000 };
    /// With room for notes about 4 keys.
    const TIGHT: WindowLimits = WindowLimits { note_bytes: 4 * Outdated::NOTE_BYTES, ..LIMITS };

    #[derive(Clone, Debug)]
    enum Step {
        Append { after: u64 },
        Cancel { which: prop::sample::Index },
        Repeat { which: prop::sample::Index },
        Tail { count: usize },
        Scan { count: usize },
        Advance { ms: u64 },
        Fire { count: usize },
        Refuse,
        Lose,
        Reset { is_tail_known: bool },
        Limit { records: usize },
        Purge,
        TakeOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            6 => prop_oneof![0..50_u64, 0..1_000_u64].prop_map(|after| Step::Append { after }),
            1 => index().prop_map(|which| Step::Cancel { which }),
            1 => index().prop_map(|which| Step::Repeat { which }),
            5 => (1..9_usize).prop_map(|count| Step::Tail { count }),
            5 => (1..9_usize).prop_map(|count| Step::Scan { count }),
            4 => (1..120_u64).prop_map(|ms| Step::Advance { ms }),
            4 => (1..9_usize).prop_map(|count| Step::Fire { count }),
            1 => Just(Step::Refuse),
            1 => Just(Step::Lose),
            1 => any::<bool>().prop_map(|is_tail_known| Step::Reset { is_tail_known }),
            1 => (1..9_usize).prop_map(|records| Step::Limit { records }),
            2 => Just(Step::Purge),
            1 => Just(Step::TakeOver),
        ]
    }

    type Log = Vec<Record<Vec<u8>, usize>>;

    /// A log, its owner, and what was fired.
    struct World {
        now: u64,
        log: Log,
        /// What is below was purged.
        start: usize,
        limits: WindowLimits,
        window: Window<Vec<u8>, usize>,
        tail: usize,
        is_loaded: bool,
        /// Tasks that were popped, but that Kafka refused.
        again: Vec<usize>,
        /// For each task: when it is due, how often it was fired, whether it was cancelled.
        tasks: Vec<(u64, usize, bool)>,
    }

    fn key(task: usize) -> Vec<u8> {
        task.to_string().into_bytes()
    }

    impl World {
        fn new(limits: WindowLimits) -> Self {
            let window = Window::new(limits, 0);
            let (log, again, tasks) = (Log::new(), Vec::new(), Vec::new());
            Self { now: 0, log, start: 0, limits, window, tail: 0, is_loaded: false, again, tasks }
        }

        fn append(&mut self, task: usize, due: Option<u64>) {
            let offset = i64::try_from(self.log.len()).unwrap();
            self.log.push(Record { value: due.map(|due| (due, task)), size: 1, key: key(task), offset });
        }

        fn play(&mut self, step: &Step) {
            match step {
                Step::Append { after } => {
                    let due = self.now + after;
                    self.tasks.push((due, 0, false));
                    self.append(self.tasks.len() - 1, Some(due));
                }
                Step::Cancel { which } if !self.tasks.is_empty() => {
                    let task = which.index(self.tasks.len());
                    self.tasks[task].2 = true;
                    self.append(task, None);
                }
                // A rescheduled task may be published twice.
                Step::Repeat { which } if !self.tasks.is_empty() => {
                    let task = which.index(self.tasks.len());
                    self.append(task, Some(self.tasks[task].0));
                }
                Step::Tail { count } => self.read_tail(*count),
                Step::Scan { count } => self.read_scan(*count),
                Step::Advance { ms } => self.now += ms,
                Step::Fire { count } => self.fire(*count),
                Step::Refuse if self.is_loaded => self.again.extend(self.window.pop(self.now)),
                Step::Lose => {
                    if let Some(task) = self.again.pop() {
                        self.window.lose(&key(task));
                    }
                }
                Step::Reset { is_tail_known } if self.is_loaded => {
                    self.window.reset(*is_tail_known);
                    if !is_tail_known {
                        // The rest of the tail was read, and lost.
                        self.tail = self.log.len();
                    }
                }
                Step::Limit { records } => {
                    self.limits.records = *records;
                    self.window.limit(self.limits);
                }
                Step::Purge => self.purge(),
                Step::TakeOver => {
                    self.window = Window::new(self.limits, self.now);
                    (self.tail, self.is_loaded) = (self.start, false);
                    self.again.clear();
                }
                Step::Cancel { .. } | Step::Repeat { .. } | Step::Refuse | Step::Reset { .. } => {}
            }
        }

        fn purge(&mut self) {
            if self.is_loaded
                && let Some(floor) = self.window.floor()
            {
                self.start = self.start.max(usize::try_from(floor).unwrap());
                self.window.prune();
            }
        }

        fn read_tail(&mut self, count: usize) {
            let end = self.tail.saturating_add(count).min(self.log.len());
            self.log[self.tail..end].iter().for_each(|record| self.window.tail(record.clone()));
            self.tail = end;
            if end == self.log.len() && !self.is_loaded {
                self.is_loaded = true;
                self.window.loaded();
            }
        }

        fn read_scan(&mut self, count: usize) {
            if !self.is_loaded {
                return;
            }
            let Some(position) = self.window.scan(self.now) else { return };
            let position = usize::try_from(position).unwrap().max(self.start);
            let end = position.saturating_add(count).min(self.log.len()).max(position);
            let read = self.log.get(position..end).unwrap_or_default().to_vec();
            let is_under_way = read.into_iter().all(|record| self.window.scanned(record));
            if !is_under_way || end >= self.log.len() {
                self.window.end_scan();
            }
        }

        fn fire(&mut self, count: usize) {
            for _ in 0..count {
                let popped = if self.is_loaded { self.again.pop().or_else(|| self.window.pop(self.now)) } else { None };
                let Some(task) = popped else { return };
                let (due, fired, _) = &mut self.tasks[task];
                assert!(*due <= self.now, "task {task} fired before its time");
                *fired += 1;
                self.append(task, None);
                self.window.fired(&key(task));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

        /// Whatever happens in between, every task is fired, none before its time, none that was cancelled and whose
        /// deletion was read, and none twice by an owner that reads the tail.
        #[test]
        fn every_task_is_fired(steps in vec(step(), 1..120), is_attentive in any::<bool>(), is_tight in any::<bool>()) {
            let mut world = World::new(if is_tight { TIGHT } else { LIMITS });
            for step in &steps {
                if is_attentive && !matches!(step, Step::TakeOver) {
                    world.read_tail(usize::MAX);
                    if matches!(step, Step::Repeat { .. }) {
                        continue;
                    }
                    let fired: Vec<_> = world.tasks.iter().map(|task| task.1).collect();
                    let again = world.again.clone();
                    world.play(step);
                    for (before, (task, (_, fired, cancelled))) in fired.iter().zip(world.tasks.iter().enumerate()) {
                        let may_fire = !*cancelled || again.contains(&task);
                        prop_assert!(may_fire || fired == before, "task {} was cancelled, and fired", task);
                    }
                    continue;
                }
                world.play(step);
            }
            // A scan knows of as many deletions that are on their way to the tail.
            let (read, fired) = if is_attentive { (usize::MAX, world.window.most_leaving()) } else { (5, 5) };
            let mut rounds = 0;
            while world.tasks.iter().any(|(_, fired, cancelled)| *fired == 0 && !cancelled) {
                rounds += 1;
                prop_assert!(rounds < 10_000, "{:?}", world.window);
                world.read_tail(read);
                world.fire(fired);
                world.read_scan(5);
                world.again.drain(..).for_each(|task| world.window.lose(&key(task)));
                if world.window.has_lost() {
                    world.window.reset(true);
                }
                world.purge();
                world.now += 10;
            }
            for (task, (_, fired, _)) in world.tasks.iter().enumerate() {
                prop_assert!(!is_attentive || *fired <= 1, "task {} fired {} times", task, fired);
            }
        }
    }

    const KIB: usize = 1_024;
    /// The share of one partition of 12.
    const SHARE: WindowLimits =
        WindowLimits { ahead_ms: 600_000, records: 10_000, bytes: 2 * KIB * KIB, note_bytes: 2 * KIB * KIB };

    /// A twelfth of 1 million waiting tasks of 1 KiB, of 5 million deletions whose records are gone, and of 1 million
    /// fired tasks whose records are still there, the worst of a log that is never compacted.
    #[test]
    fn memory_is_bounded_by_its_limits_whatever_the_log_holds() {
        let mut window = Window::new(SHARE, 1_000);
        let most = 2 * SHARE.bytes + SHARE.note_bytes + 1_024 * KIB;
        let record =
            |n: u64, value| Record { key: n.to_be_bytes(), offset: i64::try_from(n).unwrap(), size: KIB, value };
        let (fired, gone, waiting) = (80_000, 420_000, 83_000);
        let mut offset = 0;
        let mut tail = |window: &mut Window<[u8; 8], u64>, key: u64, due: Option<u64>| {
            let record = Record { offset, ..record(key, due.map(|due| (due, key))) };
            offset += 1;
            window.tail(record);
        };
        (0..fired).for_each(|n| tail(&mut window, n, Some(1)));
        (fired..fired + waiting).for_each(|n| tail(&mut window, n, Some(2_000 + n)));
        assert!(window.bytes() <= most, "{} of {most} bytes", window.bytes());
        (0..fired).for_each(|n| tail(&mut window, n, None));
        (1 << 40..(1 << 40) + gone).for_each(|n| tail(&mut window, n, None));
        assert!(window.bytes() <= most, "{} of {most} bytes", window.bytes());
        window.loaded();
        assert!(window.bytes() <= most - 1_024 * KIB, "{} of {most} bytes", window.bytes());
        assert!(window.outdated.until.len() > 10_000, "deletions whose records were read are noted");
    }

    /// What is due together is read once, however much it is, and from its first record on.
    #[test]
    fn a_backlog_that_is_due_at_once_is_read_once() {
        let mut window = Window::new(LIMITS, 0);
        let key = |n: i64| n.to_be_bytes().to_vec();
        let record = |n: i64, due| Record { key: key(n), offset: n, size: 1, value: Some((due, n)) };
        let (ended, waiting) = (5_000, 10_000);
        (0..ended).for_each(|n| window.tail(Record { value: None, ..record(n, 0) }));
        (ended..ended + waiting).for_each(|n| window.tail(record(n, 500)));
        window.loaded();
        let (mut read, mut fired) = (0, 0);
        while fired < waiting {
            while let Some(n) = window.pop(1_000) {
                fired += 1;
                window.fired(&key(n));
            }
            while let Some(position) = window.scan(1_000) {
                assert!(position >= ended, "no need to read what has ended");
                if position >= ended + waiting {
                    window.end_scan();
                    break;
                }
                read += 1;
                window.scanned(record(position, 500));
            }
            assert!(window.len() <= LIMITS.records);
        }
        assert_eq!(read, waiting);
        assert_eq!(window.floor(), Some(ended + waiting), "and all of it can be purged");
    }

    /// A queue that refuses a task now and then does not have the backlog read again from its first record.
    #[test]
    fn a_backlog_of_which_some_are_refused_is_read_little_more_than_once() {
        let mut window = Window::new(WindowLimits { note_bytes: 1_000 * Outdated::NOTE_BYTES, ..LIMITS }, 0);
        let key = |n: i64| n.to_be_bytes().to_vec();
        let record = |n: i64, value| Record { key: key(n), offset: n, size: 1, value };
        let waiting = 10_000;
        (0..waiting).for_each(|n| window.tail(record(n, Some((500, n)))));
        window.loaded();
        let (mut popped, mut fired, mut read) = (0, std::collections::HashSet::new(), 0);
        while fired.len() < 10_000 {
            while let Some(n) = window.pop(1_000) {
                popped += 1;
                if popped % 100 == 0 {
                    window.lose(&key(n));
                    window.reset(true);
                } else {
                    window.fired(&key(n));
                    let offset = waiting + i64::try_from(fired.len()).unwrap();
                    window.tail(Record { offset, ..record(n, None) });
                    assert!(fired.insert(n), "once");
                }
            }
            while let Some(position) = window.scan(1_000) {
                if position >= waiting {
                    window.end_scan();
                    break;
                }
                read += 1;
                window.scanned(record(position, Some((500, position))));
            }
        }
        assert!(read < 2 * waiting, "{read} for {waiting}");
    }

    #[test]
    fn fired_tasks_do_not_fill_the_window_of_the_next_owner() {
        let mut window = Window::new(WindowLimits { note_bytes: 1_000 * Outdated::NOTE_BYTES, ..LIMITS }, 1_000);
        let key = |n: i64| n.to_string().into_bytes();
        let record = |n: i64, due| Record { key: key(n), offset: n, size: 1, value: Some((due, n)) };
        (0..1_000).for_each(|n| window.tail(record(n, 1)));
        window.tail(record(1_000, 1_001));
        (0..1_000).for_each(|n| window.tail(Record { key: key(n), offset: 1_001 + n, size: 1, value: None }));
        window.loaded();
        assert_eq!(window.scan(1_000), Some(6), "one scan finds the waiting task");
        (6..1_000).for_each(|n| _ = window.scanned(record(n, 1)));
        window.scanned(record(1_000, 1_001));
        window.end_scan();
        assert_eq!(window.floor(), Some(1_000), "what was fired can be purged");
        assert_eq!(window.pop(1_001), Some(1_000));
        assert_eq!(window.next_ms(), None);
    }

    #[test]
    fn a_million_far_tasks_take_no_memory() {
        let mut window = Window::new(LIMITS, 0);
        for n in 0..1_000_000_i64 {
            let key = n.to_be_bytes().to_vec();
            window.tail(Record { key, offset: n, size: 8, value: Some((1_000_000 + n.unsigned_abs(), ())) });
        }
        window.loaded();
        assert_eq!((window.len(), window.next_ms()), (0, Some(1_000_000 - 50)), "only the time of the next scan");
        assert_eq!(window.scan(1_000), None);
    }

    #[test]
    fn a_lost_task_is_found_again() {
        let mut window = Window::new(LIMITS, 0);
        let record = |n: i64, due| Record { key: vec![1], offset: n, size: 1, value: Some((due, n)) };
        window.tail(record(7, 10));
        window.loaded();
        assert_eq!(window.pop(10), Some(7));
        window.lose(&vec![1]);
        assert_eq!((window.has_lost(), window.floor()), (true, Some(7)), "and not purged");
        window.reset(true);
        assert_eq!(window.scan(10), Some(7));
        window.scanned(record(7, 10));
        window.end_scan();
        assert_eq!(window.pop(10), Some(7));
    }
}
