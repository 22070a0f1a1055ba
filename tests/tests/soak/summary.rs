//! What the soak prints at its end.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use super::{
    fleet::Fleet,
    ledger::Outcome,
    oracle::{self, Evidence},
};

/// Largest number of violations that are printed; the others are only counted.
const MAX_SHOWN: usize = 40;

/// Prints a table of the kinds and how they ended, and how long undelayed tasks took.
pub(crate) fn print(evidence: &Evidence, fleet: &Fleet, violations: &[String]) {
    let mut kinds = BTreeMap::<&str, [usize; 5]>::new();
    let mut replayed = 0;
    for entry in evidence.entries.values() {
        let counts = kinds.entry(entry.kind).or_default();
        counts[0] += 1;
        let column = match &entry.outcome {
            Some(Outcome::Success(_)) => 1,
            Some(Outcome::Failure(..)) => 2,
            Some(Outcome::Revoked) => 3,
            Some(Outcome::Odd(_)) | None => 4,
        };
        counts[column] += 1;
        replayed += usize::from(entry.replayed);
    }
    println!("\n{:<18}{:>9}{:>9}{:>9}{:>9}{:>9}", "kind", "sent", "success", "failure", "revoked", "odd");
    let mut all = [0; 5];
    for (kind, counts) in &kinds {
        row(kind, counts);
        all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    row("all", &all);
    let starts: HashSet<_> = evidence.notes.iter().map(|note| (&note.id, note.token)).collect();
    println!(
        "\n{} ticks, {replayed} replayed dead letters, {} runs",
        oracle::ticks(evidence.time).count(),
        starts.len()
    );
    println!("{} workers killed, {} asked to stop", fleet.killed.len(), fleet.stopped);
    let mut took = times(evidence);
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied();
    let duration = |share| humantime::format_duration(Duration::from_millis(at(share).unwrap_or(0))).to_string();
    println!("sums took from queue to end: p50 {}, p99 {}, max {}", duration(50), duration(99), duration(100));
    let mut errors: Vec<_> = evidence.ends.errors.iter().collect();
    errors.sort_unstable();
    println!("errors logged, dead letters aside: {errors:?}");
    for violation in violations.iter().take(MAX_SHOWN) {
        println!("violation: {violation}");
    }
    println!("{} violations", violations.len());
}

fn row(kind: &str, [sent, success, failure, revoked, odd]: &[usize; 5]) {
    println!("{kind:<18}{sent:>9}{success:>9}{failure:>9}{revoked:>9}{odd:>9}");
}

/// Time from submission to end, in ms, of tasks that start at once and take no time.
fn times(evidence: &Evidence) -> Vec<u64> {
    let plain = evidence.entries.iter().filter(|(_, entry)| entry.kind == "sum");
    plain
        .filter_map(|(id, _)| {
            let (queued, ended) = evidence.known.get(id)?.time?;
            Some(ended.saturating_sub(queued))
        })
        .collect()
}
