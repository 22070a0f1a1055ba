//! No more tasks start, or run at once, than their limits allow.

use std::collections::HashMap;

use yadtq::TaskId;
use yadtq_tests::soak::{FEW, Note, START_RATE, What};

use super::ledger::Entry;

/// Tolerance in seconds: half a second is documented, the rest is for a slow machine.
const SLACK: f64 = 1.5;

/// Finds starts that were too early.
pub(crate) fn check(entries: &HashMap<TaskId, Entry>, notes: &[Note], found: &mut Vec<String>) {
    rate(notes, found);
    few(entries, notes, found);
}

/// Uses the tokens, which are times of Redis's clock in microseconds.
fn rate(notes: &[Note], found: &mut Vec<String>) {
    let starts = notes.iter().filter(|note| note.what == What::Start && note.task == "soak_paced");
    let mut times: Vec<u64> = starts.map(|note| note.token).collect();
    times.sort_unstable();
    let (rate, burst) = START_RATE;
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let seconds = std::time::Duration::from_micros(to - from).as_secs_f64();
            let count = u32::try_from(last - first + 1).expect("few");
            if f64::from(count) > burst + rate * (seconds + SLACK) {
                return found.push(format!("{count} paced tasks started within {seconds} s, from token {from} on"));
            }
        }
    }
}

fn few(entries: &HashMap<TaskId, Entry>, notes: &[Note], found: &mut Vec<String>) {
    let keys: HashMap<&str, u64> = entries.iter().filter_map(|(id, entry)| Some((id.as_str(), entry.key?))).collect();
    // For each key, the process of each running task. A task that starts again no longer runs where it started before.
    let mut running = HashMap::<u64, HashMap<&str, u32>>::new();
    for note in notes {
        if note.what == What::Killed {
            running.values_mut().for_each(|running| running.retain(|_, pid| *pid != note.pid));
        }
        let Some(&key) = keys.get(note.id.as_str()) else { continue };
        let running = running.entry(key).or_default();
        match note.what {
            What::Start => drop(running.insert(&note.id, note.pid)),
            What::End => drop(running.remove(note.id.as_str())),
            What::Killed | What::Paused | What::Resumed => {}
        }
        if running.len() > FEW {
            found.push(format!("{} tasks of key {key} ran at once: {running:?}", running.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    fn note(what: What, pid: u32, id: &str, token: u64) -> Note {
        Note { at: 0, what, pid, id: id.to_owned(), task: "soak_paced".to_owned(), attempt: 1, token }
    }

    #[test]
    fn too_many_running_tasks_are_found() {
        let ledger = Ledger::default();
        for id in ["a", "b", "c"] {
            let id = id.parse().expect("an id");
            ledger.sent(&id, "few", vec![], 0);
            ledger.keyed(&id, 1);
        }
        let entries = ledger.entries();
        let starts =
            |ids: &[(&str, u32)]| -> Vec<Note> { ids.iter().map(|(id, pid)| note(What::Start, *pid, id, 1)).collect() };
        let check = |notes: Vec<Note>| {
            let mut found = Vec::new();
            few(&entries, &notes, &mut found);
            found.len()
        };
        assert_eq!(check(starts(&[("a", 1), ("b", 2), ("a", 2)])), 0);
        assert_eq!(check(starts(&[("a", 1), ("b", 2), ("c", 1)])), 1);
        let killed = [starts(&[("a", 1), ("b", 2)]), vec![note(What::Killed, 1, "", 0)], starts(&[("c", 2)])];
        assert_eq!(check(killed.concat()), 0);
        let ended = [starts(&[("a", 1), ("b", 2)]), vec![note(What::End, 1, "a", 0)], starts(&[("c", 2)])];
        assert_eq!(check(ended.concat()), 0);
    }

    #[test]
    fn too_many_starts_are_found() {
        let check = |step_ms: u64, count: u64| {
            let notes: Vec<_> = (0..count).map(|n| note(What::Start, 1, "a", n * step_ms * 1_000)).collect();
            let mut found = Vec::new();
            rate(&notes, &mut found);
            found.len()
        };
        assert_eq!(check(200, 100), 0, "its rate");
        assert_eq!(check(150, 100), 1, "a third more");
        assert_eq!((check(0, 10), check(0, 11)), (0, 1));
    }
}
