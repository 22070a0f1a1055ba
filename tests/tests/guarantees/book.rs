//! The record of tasks with ordering keys, and an oracle that checks their order.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use yadtq::Call;
use yadtq_tests::{
    process::Process,
    tasks::{self, Record},
    until,
};

/// The lines that the tasks and the test wrote, in the order of events.
pub(super) struct Book(pub(super) PathBuf);

impl Book {
    pub(super) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        // The last line may be incomplete.
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    pub(super) fn ended(&self) -> usize {
        self.lines().iter().filter(|line| line.starts_with("end ")).count()
    }

    pub(super) async fn until_ended(&self, count: usize) {
        until(&format!("{count} tasks have ended"), async || (self.ended() >= count).then_some(())).await;
    }

    /// Kills a worker. Its runs have ended when the line is written.
    pub(super) async fn kill(&self, worker: &mut Process) {
        let pid = worker.pid();
        worker.kill().await;
        Record::open(&self.0).and_then(|record| record.line(&format!("killed {pid}"))).expect("written");
    }
}

/// One execution.
#[derive(Clone, Copy, Debug)]
struct Run {
    number: u32,
    attempt: u32,
    pid: u32,
}

/// The state of a key.
#[derive(Default)]
struct Line {
    open: Option<Run>,
    /// How the latest execution ended, and whether that was final.
    last: Option<(Run, bool)>,
}

/// How often an execution was interrupted or repeated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) cut_off: usize,
    pub(super) again: usize,
    pub(super) retried_elsewhere: usize,
}

/// Checks every execution against the guarantee, and returns the counts. `count`: number of keys; `each`: number of tasks of a key.
pub(super) fn check(lines: &[String], count: u32, each: u32) -> Checked {
    let mut keys = HashMap::<u32, Line>::new();
    let (mut killed, mut checked) = (HashSet::new(), Checked::default());
    for line in lines {
        let mut words = line.split(' ');
        let what = words.next().expect("a word");
        let numbers: Vec<u32> = words.map(|word| word.parse().expect("a number")).collect();
        let [key, number, attempt, pid] = numbers[..] else {
            killed.insert(numbers[0]);
            continue;
        };
        let run = Run { number, attempt, pid };
        let Line { open, last } = keys.entry(key).or_default();
        if what != "start" {
            let begun = open.take().unwrap_or_else(|| panic!("key {key}: {run:?} ends, and never began"));
            assert_eq!((begun.number, begun.attempt, begun.pid), (number, attempt, pid), "key {key}: another one ends");
            *last = Some((run, what != "fail"));
            continue;
        }
        if let Some(other) = open.replace(run) {
            assert!(killed.contains(&other.pid), "key {key}: {run:?} begins while {other:?} runs");
            assert_eq!(number, other.number, "key {key}: {run:?} begins before {other:?} has ended");
            checked.cut_off += 1;
        } else {
            match *last {
                Some((before, true)) if before.number == number => {
                    assert!(killed.contains(&before.pid), "key {key}: {run:?} again, after {before:?} ended");
                    checked.again += 1;
                }
                Some((before, true)) => assert_eq!(number, before.number + 1, "key {key}: {run:?} after {before:?}"),
                Some((before, false)) => {
                    assert_eq!(number, before.number, "key {key}: {run:?} overtakes the retry of {before:?}");
                    let untold = attempt == before.attempt && killed.contains(&before.pid);
                    assert!(untold || attempt == before.attempt + 1, "key {key}: {run:?} after {before:?}");
                    checked.retried_elsewhere += usize::from(before.pid != pid);
                }
                None => assert_eq!(number, 0, "key {key} begins with {run:?}"),
            }
        }
    }
    assert_eq!(keys.len(), count as usize);
    for (key, Line { open, last }) in keys {
        assert!(open.is_none(), "key {key}: {open:?} never ended");
        let (last, for_good) = last.expect("it has begun");
        assert!(for_good && last.number == each - 1, "key {key} ends with {last:?}");
    }
    checked
}

/// `each` tasks for each of `count` keys, in turn. Every tenth fails once.
pub(super) fn calls(count: u32, each: u32) -> impl Iterator<Item = Call<u32>> {
    let call = |number: u32, key: u32| {
        let ms = u64::from((key * 31 + number * 17) % 40);
        let failures = u32::from((key * 7 + number).is_multiple_of(10));
        tasks::book.call(key, number, ms, failures).ordering_key(format!("key-{key}"))
    };
    (0..each).flat_map(move |number| (0..count).map(move |key| call(number, key)))
}
