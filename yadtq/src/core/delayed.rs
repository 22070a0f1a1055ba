//! Which delayed tasks of one partition are in memory, and which of them is due next.
//!
//! ```text
//!   due:  now ──── soon, in memory ────► horizon ──── later, only in the log ────►
//! ```
//! Records are in the order of (due time, offset). Those before the horizon are in memory; of the others only the
//! earliest due time is known. When that comes near, a scan of the log finds the next ones, while new records go on
//! coming in at the tail. A window that is full lets go of its latest records, and its horizon moves back. So memory
//! follows the window and not the backlog.
//!
//! A key names one step of one task: a record without a value says that it was fired or cancelled. One that comes under
//! the same key after that counts again.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hash},
};

/// What a window holds at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far ahead it looks, in ms.
    pub ahead_ms: u64,
    /// Records.
    pub records: usize,
    /// Bytes, unless it has fewer than [`Limits::FEW`] records.
    pub bytes: usize,
}

impl Limits {
    /// So many records are kept however large they are.
    const FEW: usize = 16;
}

/// A record of the log; without a value: what its key had is done.
#[derive(Clone, Debug)]
pub struct Record<K, V> {
    /// Names the step of the task.
    pub key: K,
    /// Where it is in the log.
    pub offset: i64,
    /// In bytes.
    pub size: usize,
    /// When it is due, in ms since the Unix epoch, and what it is.
    pub value: Option<(u64, V)>,
}

type Place = (u64, i64);

#[derive(Clone, Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    size: usize,
}

/// The delayed tasks of one partition that are due soon.
#[derive(Debug)]
pub struct Window<K, V> {
    limits: Limits,
    soon: Found<K, V>,
    scan: Option<Scan<K, V>>,
    /// Keys that are done, while the log is read for the first time: the records of most of them come before.
    done: Option<Done>,
    /// A record was let go while the log was read for the first time, perhaps for one that is done.
    overflowed: bool,
}

/// A part of the order: what is before the horizon, and the due time of the earliest record beyond.
#[derive(Debug)]
struct Found<K, V> {
    entries: BTreeMap<Place, Entry<K, V>>,
    keys: HashMap<K, Place>,
    bytes: usize,
    horizon: Place,
    later: Option<u64>,
}

#[derive(Debug)]
struct Scan<K, V> {
    found: Found<K, V>,
    /// Keys that came in at the tail since it started, and where: what the log has of them from before is old.
    touched: HashMap<K, i64>,
    done: Option<Done>,
}

/// Keys, as hashes that no two of them are likely to share in the life of the universe.
#[derive(Debug, Default)]
struct Done {
    first: RandomState,
    second: RandomState,
    keys: HashSet<(u64, u64)>,
}

impl Done {
    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.first.hash_one(key), self.second.hash_one(key))
    }

    fn has(&self, key: &[u8]) -> bool {
        self.keys.contains(&self.hash(key))
    }

    fn remove(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        self.keys.remove(&hash);
    }

    fn insert(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        self.keys.insert(hash);
    }
}

impl<K: AsRef<[u8]> + Clone + Eq + Hash, V> Window<K, V> {
    /// A window over a log that is about to be read from its start.
    #[must_use]
    pub fn new(limits: Limits, now_ms: u64) -> Self {
        let soon = Found::before((now_ms.saturating_add(limits.ahead_ms), 0));
        Self { limits, soon, scan: None, done: Some(Done::default()), overflowed: false }
    }

    /// A record came in at the tail.
    pub fn tail(&mut self, record: Record<K, V>) {
        let Record { key, offset, size, value } = record;
        self.soon.remove(&key);
        if let Some(scan) = &mut self.scan {
            scan.found.remove(&key);
            scan.touched.insert(key.clone(), offset);
        }
        let Some((due, value)) = value else {
            if let Some(done) = &mut self.done {
                done.insert(key.as_ref());
            }
            return;
        };
        // A key that is used again, as by a task whose id was chosen again after its end.
        if let Some(done) = &mut self.done {
            done.remove(key.as_ref());
        }
        self.put((due, offset), Entry { key, value, size });
    }

    fn put(&mut self, place: Place, entry: Entry<K, V>) {
        let (limits, horizon) = (self.limits, self.soon.horizon);
        match &mut self.scan {
            Some(Scan { found, .. }) => self.soon.put(place, entry, limits, |place, entry| {
                found.put(place, entry, limits, |_, _| ());
            }),
            None => self.soon.put(place, entry, limits, |_, _| ()),
        }
        self.overflowed |= self.done.is_some() && self.soon.horizon < horizon;
    }

    /// The whole log was read once. From now on tasks may be fired.
    pub fn loaded(&mut self) {
        // Those that were let go are found by a scan, which then has to know what is done.
        if !self.overflowed {
            self.done = None;
        }
    }

    /// The earliest task, if it is due. It is not in the window any more.
    pub fn pop(&mut self, now_ms: u64) -> Option<V> {
        let entry = self.soon.entries.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        let Entry { key, value, size } = entry.remove();
        self.soon.keys.remove(&key);
        self.soon.bytes -= size;
        Some(value)
    }

    /// When there is something to do next: a task is due, or a scan.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let first = self.soon.entries.first_key_value().map(|(place, _)| place.0);
        let scan = if self.scan.is_none() { self.soon.later } else { None };
        // A scan that waits for room is due when tasks have been fired, and not before.
        let scan = scan.filter(|_| self.has_room()).map(|later| later.saturating_sub(self.limits.ahead_ms / 2));
        first.into_iter().chain(scan).min()
    }

    /// Tasks in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.soon.entries.len()
    }

    fn has_room(&self) -> bool {
        self.soon.entries.len() <= self.limits.records / 2 && self.soon.bytes <= self.limits.bytes / 2
            || self.soon.entries.len() < Limits::FEW / 2
    }

    /// Begins a scan if one is due: the log is then to be read from its start to its end, with [`scanned`](Self::scanned)
    /// for each record.
    pub fn begin_scan(&mut self, now_ms: u64) -> bool {
        let near = now_ms.saturating_add(self.limits.ahead_ms / 2);
        let due = self.scan.is_none() && self.has_room() && self.soon.later.is_some_and(|later| later <= near);
        if due {
            let to = (now_ms.saturating_add(self.limits.ahead_ms), 0).max(self.soon.horizon);
            self.scan = Some(Scan { found: Found::before(to), touched: HashMap::new(), done: self.done.take() });
        }
        due
    }

    /// The scan read a record.
    pub fn scanned(&mut self, record: Record<K, V>) {
        let Some(scan) = &mut self.scan else { return };
        let Record { key, offset, size, value } = record;
        if scan.touched.get(&key).is_some_and(|&touched| offset <= touched) {
            return;
        }
        scan.found.remove(&key);
        let Some((due, value)) = value else { return };
        let is_done = scan.done.as_ref().is_some_and(|done| done.has(key.as_ref()));
        // What is before the horizon is in memory, or was fired. The horizon may have moved back since the scan began.
        if !is_done && (due, offset) >= self.soon.horizon {
            scan.found.put((due, offset), Entry { key, value, size }, self.limits, |_, _| ());
        }
    }

    /// The scan has come to the end of the log.
    pub fn end_scan(&mut self) {
        let Some(Scan { found, .. }) = self.scan.take() else { return };
        self.soon.horizon = self.soon.horizon.max(found.horizon);
        self.soon.later = found.later;
        for (place, entry) in found.entries {
            self.soon.put(place, entry, self.limits, |_, _| ());
        }
    }

    /// The scan could not be finished; it is due again.
    pub fn drop_scan(&mut self) {
        if let Some(scan) = self.scan.take() {
            self.soon.later = self.soon.later.into_iter().chain(scan.found.earliest()).chain(scan.found.later).min();
            self.done = scan.done;
        }
    }
}

impl<K: Clone + Eq + Hash, V> Found<K, V> {
    fn before(horizon: Place) -> Self {
        Self { entries: BTreeMap::new(), keys: HashMap::new(), bytes: 0, horizon, later: None }
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.keys.remove(key).and_then(|place| self.entries.remove(&place)) {
            self.bytes -= entry.size;
        }
    }

    /// Takes a record in, if it is before the horizon; `spill` gets it if not, and those for which there is no room.
    fn put(&mut self, place: Place, entry: Entry<K, V>, limits: Limits, mut spill: impl FnMut(Place, Entry<K, V>)) {
        if place >= self.horizon {
            self.note_later(place.0);
            return spill(place, entry);
        }
        self.bytes += entry.size;
        self.keys.insert(entry.key.clone(), place);
        self.entries.insert(place, entry);
        while self.entries.len() > limits.records || self.bytes > limits.bytes && self.entries.len() > Limits::FEW {
            let Some((place, entry)) = self.entries.pop_last() else { break };
            self.keys.remove(&entry.key);
            self.bytes -= entry.size;
            self.horizon = place;
            self.note_later(place.0);
            spill(place, entry);
        }
    }

    fn note_later(&mut self, due: u64) {
        self.later = Some(self.later.map_or(due, |later| later.min(due)));
    }

    fn earliest(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(place, _)| place.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LIMITS: Limits = Limits { ahead_ms: 100, records: 6, bytes: 1_000 };

    #[derive(Clone, Debug)]
    enum Step {
        Append { after: u64 },
        Cancel { which: prop::sample::Index },
        Repeat { which: prop::sample::Index },
        Tail { count: usize },
        Scan { count: usize },
        Advance { ms: u64 },
        Fire,
        Refuse,
        TakeOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop_oneof![0..50_u64, 0..1_000_u64].prop_map(|after| Step::Append { after }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Cancel { which }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Repeat { which }),
            5 => (1..9_usize).prop_map(|count| Step::Tail { count }),
            5 => (1..9_usize).prop_map(|count| Step::Scan { count }),
            4 => (1..120_u64).prop_map(|ms| Step::Advance { ms }),
            4 => Just(Step::Fire),
            1 => Just(Step::Refuse),
            1 => Just(Step::TakeOver),
        ]
    }

    type Log = Vec<Record<Vec<u8>, usize>>;

    /// A log, its owner, and what was fired.
    struct World {
        now: u64,
        log: Log,
        window: Window<Vec<u8>, usize>,
        tail: usize,
        scan: Option<usize>,
        is_loaded: bool,
        /// What was not taken when it was fired.
        again: Vec<usize>,
        /// By task: when it is due, how often it was fired, whether it was cancelled.
        tasks: Vec<(u64, usize, bool)>,
    }

    impl World {
        fn append(&mut self, task: usize, due: Option<u64>) {
            let (key, offset) = (format!("{task}").into_bytes(), i64::try_from(self.log.len()).unwrap());
            self.log.push(Record { value: due.map(|due| (due, task)), size: 1, key, offset });
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
                // As when a hand-on is published again.
                Step::Repeat { which } if !self.tasks.is_empty() => {
                    let task = which.index(self.tasks.len());
                    self.append(task, Some(self.tasks[task].0));
                }
                Step::Tail { count } => self.read_tail(*count),
                Step::Scan { count } => self.read_scan(*count),
                Step::Advance { ms } => self.now += ms,
                Step::Fire => self.fire(),
                Step::Refuse if self.is_loaded => self.again.extend(self.window.pop(self.now)),
                Step::TakeOver => {
                    self.window = Window::new(LIMITS, self.now);
                    (self.tail, self.scan, self.is_loaded) = (0, None, false);
                    self.again.clear();
                }
                Step::Cancel { .. } | Step::Repeat { .. } | Step::Refuse => {}
            }
            assert!(self.window.len() <= LIMITS.records);
        }

        fn read_tail(&mut self, count: usize) {
            let end = (self.tail + count).min(self.log.len());
            self.log[self.tail..end].iter().for_each(|record| self.window.tail(record.clone()));
            self.tail = end;
            if end == self.log.len() && !self.is_loaded {
                self.is_loaded = true;
                self.window.loaded();
            }
        }

        fn read_scan(&mut self, count: usize) {
            if self.scan.is_none() && self.is_loaded && self.window.begin_scan(self.now) {
                self.scan = Some(0);
            }
            let Some(start) = self.scan else { return };
            let end = (start + count).min(self.log.len());
            self.log[start..end].iter().for_each(|record| self.window.scanned(record.clone()));
            self.scan = Some(end).filter(|_| end < self.log.len());
            if self.scan.is_none() {
                self.window.end_scan();
            }
        }

        fn fire(&mut self) {
            while self.is_loaded
                && let Some(task) = self.again.pop().or_else(|| self.window.pop(self.now))
            {
                let (due, fired, _) = &mut self.tasks[task];
                assert!(*due <= self.now, "task {task} fired before its time");
                *fired += 1;
                self.append(task, None);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// Whatever comes in between: every task is fired, none before its time, and none twice by an owner that has
        /// read the tail.
        #[test]
        fn every_task_is_fired(steps in vec(step(), 1..120), is_attentive in any::<bool>()) {
            let window = Window::new(LIMITS, 0);
            let mut world =
                World { now: 0, log: Log::new(), window, tail: 0, scan: None, is_loaded: false, again: Vec::new(), tasks: Vec::new() };
            for step in &steps {
                if is_attentive && !matches!(step, Step::TakeOver) {
                    world.read_tail(usize::MAX >> 1);
                    if world.scan.is_some() {
                        world.read_scan(usize::MAX >> 1);
                    }
                    if matches!(step, Step::Repeat { .. }) {
                        continue;
                    }
                }
                world.play(step);
            }
            let mut rounds = 0;
            while world.tasks.iter().any(|(_, fired, cancelled)| *fired == 0 && !cancelled) {
                rounds += 1;
                prop_assert!(rounds < 1_000, "{:?}", world.window);
                world.read_tail(5);
                world.read_scan(5);
                world.fire();
                world.now += 10;
            }
            for (task, (_, fired, _)) in world.tasks.iter().enumerate() {
                prop_assert!(!is_attentive || *fired <= 1, "task {} fired {} times", task, fired);
            }
        }
    }

    #[test]
    fn what_was_fired_does_not_fill_the_window_of_the_next_owner() {
        let mut window = Window::new(LIMITS, 1_000);
        let key = |n: i64| n.to_string().into_bytes();
        let record = |n: i64, due| Record { key: key(n), offset: n, size: 1, value: Some((due, n)) };
        (0..1_000).for_each(|n| window.tail(record(n, 1)));
        window.tail(record(1_000, 1_001));
        (0..1_000).for_each(|n| window.tail(Record { key: key(n), offset: 1_001 + n, size: 1, value: None }));
        window.loaded();
        assert!(window.begin_scan(1_000), "one scan finds what waits");
        (0..1_000).for_each(|n| window.scanned(record(n, 1)));
        window.scanned(record(1_000, 1_001));
        window.end_scan();
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
        assert_eq!((window.len(), window.next_ms()), (0, Some(1_000_000 - 50)), "only when it has to look again");
        assert!(!window.begin_scan(1_000));
    }
}
