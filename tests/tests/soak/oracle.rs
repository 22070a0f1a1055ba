//! What must be true of every task at the end.
//!
//! Three sources are compared: the results that the senders got, the data on the servers, and the notes and logs of the
//! workers.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead as _, BufReader},
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use yadtq::TaskId;
use yadtq_tests::soak::{BEAT, BEAT_SECONDS, Note, What};

use super::{
    ledger::{Entry, Outcome},
    limits, order, pauses,
};

/// Largest number of attempts of a task, by its name.
fn most_attempts(task: &str) -> u32 {
    match task {
        "soak_flaky" | "soak_ordered" => 3,
        "soak_dawdle" => 2,
        // These decide about their end themselves, or succeed.
        "soak_sum" | "soak_fatal" | "soak_snooze" | "soak_obey" | "soak_count" | "soak_doze" | "soak_overrun"
        | "soak_paced" | "soak_few" | "soak_purged" | "soak_switched" => 1,
        other => panic!("{other} is no task of the soak"),
    }
}

/// How often each task ended, by the logs of all workers.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    by_task: HashMap<String, Counts>,
    /// Events of level ERROR other than dead letters, and how often each was logged.
    pub errors: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    succeeded: usize,
    failed: usize,
    revoked: usize,
}

impl Ends {
    /// Reads the logs. The last line of a killed worker may be incomplete.
    pub(crate) fn read(directory: &Path) -> Self {
        let mut ends = Self::default();
        for entry in std::fs::read_dir(directory).expect("the directory is there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let file = std::fs::File::open(path).expect("the log is there");
                BufReader::new(file).lines().for_each(|line| ends.line(&line.expect("a line")));
            }
        }
        ends
    }

    /// Counts a line of a log.
    fn line(&mut self, line: &str) {
        let interesting = ["\"task_succeeded\"", "\"task_failed\"", "\"task_revoked\"", "\"ERROR\""];
        if !interesting.iter().any(|mark| line.contains(mark)) {
            return;
        }
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let name = event["event"].as_str().unwrap_or("unnamed");
        let count = |ends: &mut Self, which: fn(&mut Counts) -> &mut usize| {
            let id = event["task_id"].as_str().expect("it has a task").to_owned();
            *which(ends.by_task.entry(id).or_default()) += 1;
        };
        match name {
            "task_succeeded" => count(self, |counts| &mut counts.succeeded),
            "task_failed" => count(self, |counts| &mut counts.failed),
            // A worker that claims a task which was revoked before logs that too, by "claim".
            "task_revoked" if event["by"] == "run" => count(self, |counts| &mut counts.revoked),
            name if event["level"] == "ERROR" && name != "task_dead_lettered" => {
                *self.errors.entry(name.to_owned()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn of(&self, id: &str) -> Counts {
        self.by_task.get(id).copied().unwrap_or_default()
    }
}

/// What Redis knows about a task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The status.
    pub status: String,
    /// When it was submitted, and when it ended, in ms since the Unix epoch.
    pub time: Option<(u64, u64)>,
    /// All fields, for people.
    pub text: String,
}

/// Everything that the oracle looks at.
#[derive(Default)]
pub(crate) struct Evidence {
    /// What was sent, and how it ended.
    pub entries: HashMap<TaskId, Entry>,
    /// What Redis knows about the tasks and the ticks.
    pub known: HashMap<TaskId, Known>,
    /// What ran, in order.
    pub notes: Vec<Note>,
    /// What the workers logged.
    pub ends: Ends,
    /// Tasks of the remaining dead letters.
    pub letters: HashSet<TaskId>,
    /// When all workers were up, and when the load ended, in ms since the Unix epoch.
    pub time: (u64, u64),
}

/// Ticks that are due from one time to the other, in ms since the Unix epoch.
pub(crate) fn ticks((from, to): (u64, u64)) -> impl Iterator<Item = TaskId> {
    let first = from.div_ceil(1_000).next_multiple_of(BEAT_SECONDS);
    (first..=to / 1_000).step_by(usize::try_from(BEAT_SECONDS).expect("small")).map(|second| {
        let time = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        format!("{BEAT}@{time}").parse().expect("an id")
    })
}

impl Evidence {
    /// All violations.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let runs = Runs::read(&self.notes, &mut found);
        for (id, entry) in &self.entries {
            self.ends_as_it_may(id, entry, &mut found);
            self.ends_once(id, usize::from(entry.replayed), &runs, &mut found);
            match runs.first.get(id.as_str()) {
                Some(_) if entry.never => found.push(format!("{id} ({}) ran after its revocation", entry.kind)),
                Some(first) if first.at < entry.not_before => {
                    found.push(format!("{id} ({}) ran {} ms early", entry.kind, entry.not_before - first.at));
                }
                _ => {}
            }
        }
        for id in ticks(self.time) {
            match self.known.get(&id) {
                Some(known) if known.status == "success" => self.ends_once(&id, 0, &runs, &mut found),
                known => {
                    let text = known.map(|known| &known.text);
                    found.push(format!("tick {id} has not succeeded: {text:?}"));
                }
            }
        }
        self.letters_are_of_failures(&mut found);
        order::check(&self.entries, &self.notes, &mut found);
        limits::check(&self.entries, &self.notes, &mut found);
        pauses::check(&self.notes, &mut found);
        found
    }

    /// Checks that the sender got an allowed outcome, and that Redis has the same.
    fn ends_as_it_may(&self, id: &TaskId, entry: &Entry, found: &mut Vec<String>) {
        let (kind, known) = (entry.kind, self.known.get(id));
        let text = known.map(|known| &known.text);
        let Some(outcome) = &entry.outcome else {
            return found.push(format!("{id} ({kind}) never ended: {text:?}"));
        };
        if !entry.allowed.contains(outcome) {
            found.push(format!("{id} ({kind}) ended as {outcome:?}, not as one of {:?}: {text:?}", entry.allowed));
        }
        let status = known.map(|known| known.status.as_str());
        if status != Some(outcome.status()) {
            found.push(format!("{id} ({kind}) ended as {outcome:?}, and Redis says {status:?}"));
        }
    }

    /// Checks in the logs that the task ended once, or not at all if the worker that could have logged it was killed.
    fn ends_once(&self, id: &TaskId, replays: usize, runs: &Runs<'_>, found: &mut Vec<String>) {
        let Counts { succeeded, failed, revoked } = self.ends.of(id.as_str());
        // A replayed task ended once before, as a failure.
        if succeeded > 1 || failed > 1 + replays || succeeded + failed + revoked > 1 + replays {
            found.push(format!("{id}: recorded {succeeded} successes, {failed} failures, {revoked} revocations"));
        }
        let ended = self.known.get(id).is_some_and(|known| known.status == "success");
        let ran_in = runs.pids.get(id.as_str()).map_or(&[][..], Vec::as_slice);
        if ended && succeeded == 0 && !ran_in.iter().any(|pid| runs.killed.contains(pid)) {
            found.push(format!("{id}: nobody recorded its success; it ran in {ran_in:?}"));
        }
    }

    fn letters_are_of_failures(&self, found: &mut Vec<String>) {
        for (id, entry) in &self.entries {
            let has_failed = matches!(entry.outcome, Some(Outcome::Failure(..)));
            match (has_failed, self.letters.contains(id)) {
                (true, false) => found.push(format!("{id} ({}) failed, and is no dead letter", entry.kind)),
                // A letter may be written twice, and a replay removes only those that it reads.
                (false, true) if !entry.replayed => {
                    found.push(format!("{id} ({}) is a dead letter, and ended as {:?}", entry.kind, entry.outcome));
                }
                _ => {}
            }
        }
        for id in self.letters.iter().filter(|id| !self.entries.contains_key(*id)) {
            found.push(format!("nobody sent the dead letter {id}"));
        }
    }
}

/// The runs that were noted, by task.
struct Runs<'a> {
    first: HashMap<&'a str, &'a Note>,
    pids: HashMap<&'a str, Vec<u32>>,
    killed: HashSet<u32>,
}

impl<'a> Runs<'a> {
    /// Also checks that tokens grow, and that no task has more attempts than its policy allows.
    fn read(notes: &'a [Note], found: &mut Vec<String>) -> Self {
        let (mut runs, mut tokens) =
            (Self { first: HashMap::new(), pids: HashMap::new(), killed: HashSet::new() }, HashMap::new());
        for note in notes {
            match note.what {
                What::Killed => drop(runs.killed.insert(note.pid)),
                What::End | What::Paused | What::Resumed => {}
                What::Start => {
                    let id = note.id.as_str();
                    runs.first.entry(id).or_insert(note);
                    runs.pids.entry(id).or_default().push(note.pid);
                    if note.attempt > most_attempts(&note.task) {
                        found.push(format!("{id} ({}) makes attempt {}", note.task, note.attempt));
                    }
                    let before = tokens.insert(id, note.token).unwrap_or(0);
                    if note.token <= before {
                        found.push(format!("{id} ({}) ran under token {before}, then {}", note.task, note.token));
                    }
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190-1";

    fn note(what: What, pid: u32, attempt: u32, token: u64) -> Note {
        Note { at: 1_000, what, pid, id: ID.to_owned(), task: "soak_sum".to_owned(), attempt, token }
    }

    /// A task that ended well, in process 7.
    fn good() -> Evidence {
        let sum = Outcome::Success(Some(3.into()));
        let entry = Entry {
            kind: "sum",
            allowed: vec![sum.clone()],
            not_before: 0,
            never: false,
            line: None,
            key: None,
            outcome: Some(sum),
            replayed: false,
        };
        let (id, status): (TaskId, _) = (ID.parse().expect("an id"), "success".to_owned());
        let mut evidence = Evidence {
            entries: HashMap::from([(id.clone(), entry)]),
            known: HashMap::from([(id, Known { status, ..Known::default() })]),
            notes: vec![note(What::Start, 7, 1, 1), note(What::End, 7, 1, 1)],
            time: (1, 0),
            ..Evidence::default()
        };
        evidence.logged("task_succeeded");
        evidence
    }

    impl Evidence {
        fn logged(&mut self, event: &str) {
            self.ends.line(&format!(r#"{{"event":"{event}","task_id":"{ID}","by":"run"}}"#));
        }

        fn entry(&mut self) -> &mut Entry {
            self.entries.values_mut().next().expect("one")
        }
    }

    #[test]
    fn correct_ends_are_no_violation() {
        assert_eq!(good().violations(), Vec::<String>::new());
        // The worker was killed between the record and the log, or before the record: then another worker ran the task.
        let mut killed = good();
        killed.ends = Ends::default();
        killed.notes.push(note(What::Killed, 7, 0, 0));
        assert_eq!(killed.violations(), Vec::<String>::new());
        killed.notes.push(note(What::Start, 8, 1, 2));
        killed.logged("task_succeeded");
        assert_eq!(killed.violations(), Vec::<String>::new());
    }

    #[test]
    fn everything_else_is_a_violation() {
        type Harm = fn(&mut Evidence);
        let harms: [(&str, Harm); 13] = [
            ("never ended", |it| it.entry().outcome = None),
            ("not as one of", |it| it.entry().allowed = vec![Outcome::Revoked]),
            ("Redis says None", |it| it.known.clear()),
            ("Redis says Some(\"running\")", |it| {
                it.known.values_mut().for_each(|known| known.status = "running".to_owned());
            }),
            ("recorded 2 successes", |it| it.logged("task_succeeded")),
            ("1 failures", |it| it.logged("task_failed")),
            ("1 revocations", |it| it.logged("task_revoked")),
            ("nobody recorded its success", |it| it.ends = Ends::default()),
            ("ran after its revocation", |it| it.entry().never = true),
            ("500 ms early", |it| it.entry().not_before = 1_500),
            ("makes attempt 2", |it| it.notes[0].attempt = 2),
            ("ran under token 1, then 1", |it| it.notes.push(note(What::Start, 8, 1, 1))),
            ("is a dead letter", |it| it.letters.extend([ID.parse().expect("an id")])),
        ];
        for (expected, harm) in harms {
            let mut evidence = good();
            harm(&mut evidence);
            let found = evidence.violations();
            assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        }
        let mut tickless = good();
        tickless.time = (1_001, 5_999);
        assert_eq!(tickless.violations().len(), 2, "ticks of seconds 2 and 4");
        let mut failed = good();
        let failure = Outcome::Failure("error".to_owned(), 1);
        (failed.entry().allowed, failed.entry().outcome) = (vec![failure.clone()], Some(failure));
        failed.known.values_mut().for_each(|known| known.status = "failure".to_owned());
        assert!(failed.violations()[0].contains("and is no dead letter"), "{:?}", failed.violations());
    }
}
