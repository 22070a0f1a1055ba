//! Tasks of one ordering key run one after the other, in the order in which they were sent.

use std::collections::HashMap;

use yadtq::TaskId;
use yadtq_tests::soak::{Note, What};

use super::ledger::Entry;

/// The task of a key that ran last.
struct Head {
    number: u64,
    pid: u32,
    runs: bool,
}

/// Finds tasks that ran before their predecessors had ended.
pub(crate) fn check(entries: &HashMap<TaskId, Entry>, notes: &[Note], found: &mut Vec<String>) {
    let mut lines = HashMap::<usize, Head>::new();
    // A task that failed and was replayed ran a second time, at the end.
    let lanes: HashMap<&str, (usize, u64)> = entries
        .iter()
        .filter(|(_, entry)| !entry.replayed)
        .filter_map(|(id, entry)| Some((id.as_str(), entry.line?)))
        .collect();
    for note in notes {
        if note.what == What::Killed {
            lines.values_mut().filter(|head| head.pid == note.pid).for_each(|head| head.runs = false);
        }
        let Some(&(key, number)) = lanes.get(note.id.as_str()) else { continue };
        let head = lines.entry(key).or_insert(Head { number: 0, pid: note.pid, runs: false });
        match note.what {
            What::Start if number < head.number => {
                found.push(format!("line {key}: {number} ({}) ran after {}", note.id, head.number));
            }
            What::Start => {
                if head.runs && head.number < number {
                    found.push(format!("line {key}: {number} ({}) began while {} ran", note.id, head.number));
                }
                *head = Head { number, pid: note.pid, runs: true };
            }
            What::End if number == head.number => head.runs = false,
            What::End | What::Killed | What::Paused | What::Resumed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    /// The violations in a lane of three tasks. In `runs`, `S1` is the start of the first task, `E1` its end, `K` a kill.
    fn found(runs: &str) -> Vec<String> {
        let ledger = Ledger::default();
        for number in 0..3 {
            let id = format!("{number}").parse().expect("an id");
            ledger.sent(&id, "ordered", vec![], 0);
            ledger.in_line(&id, 0, number);
        }
        let note = |text: &str| {
            let what = match &text[..1] {
                "S" => What::Start,
                "E" => What::End,
                _ => What::Killed,
            };
            Note { at: 0, what, pid: 1, id: text[1..].to_owned(), task: String::new(), attempt: 1, token: 1 }
        };
        let mut found = Vec::new();
        check(&ledger.entries(), &runs.split(' ').map(note).collect::<Vec<_>>(), &mut found);
        found
    }

    #[test]
    fn wrong_order_and_overlap_are_found() {
        for good in ["S0 E0 S1 E1 S2 E2", "S0 E0 S0 E0 S1 E1", "S0 K S0 E0 S1", "S0 E0 S2 E2"] {
            assert_eq!(found(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["S0 E0 S2 E2 S1", "S0 S1", "S0 E0 S1 E1 S0"] {
            assert_eq!(found(bad).len(), 1, "{bad}");
        }
    }
}
