//! What was sent, how it may end, and how it ended.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use yadtq::{Error, TaskId};

/// How a task ended, as its handle reports it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// With this result, if it was kept.
    Success(Option<Value>),
    /// With an error of this kind, after so many attempts.
    Failure(String, u32),
    /// It was revoked.
    Revoked,
    /// In a way in which no task may end.
    Odd(String),
}

impl Outcome {
    /// The status that goes with it.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self::Success(_) => "success",
            Self::Failure(..) => "failure",
            Self::Revoked => "revoked",
            Self::Odd(_) => "odd",
        }
    }
}

impl From<Result<Value, Error>> for Outcome {
    fn from(result: Result<Value, Error>) -> Self {
        match result {
            Ok(value) => Self::Success(Some(value)),
            Err(Error::NoResult { .. }) => Self::Success(None),
            Err(Error::TaskFailed { kind, attempts, .. }) => Self::Failure(kind.to_string(), attempts),
            Err(Error::Revoked { .. } | Error::Expired { .. } | Error::Purged { .. }) => Self::Revoked,
            Err(other) => Self::Odd(other.to_string()),
        }
    }
}

/// One task.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its kind in the load.
    pub kind: &'static str,
    /// How it may end.
    pub allowed: Vec<Outcome>,
    /// Earliest time at which it may start, in ms since the Unix epoch.
    pub not_before: u64,
    /// Whether it must never start.
    pub never: bool,
    /// Its ordering key, and its number in that lane.
    pub line: Option<(usize, u64)>,
    /// The key of its limit.
    pub key: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Whether it failed once, and was replayed.
    pub replayed: bool,
}

/// All tasks of a soak.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<HashMap<TaskId, Entry>>,
    violations: Mutex<Vec<String>>,
}

impl Ledger {
    /// Adds a task that was sent. A task that is already known stays unchanged.
    pub(crate) fn sent(&self, id: &TaskId, kind: &'static str, allowed: Vec<Outcome>, not_before: u64) {
        let entry =
            Entry { kind, allowed, not_before, never: false, line: None, key: None, outcome: None, replayed: false };
        self.lock().entry(id.clone()).or_insert(entry);
    }

    /// Changes how a task may end.
    pub(crate) fn may_end(&self, id: &TaskId, allowed: Vec<Outcome>, never: bool) {
        if let Some(entry) = self.lock().get_mut(id) {
            (entry.allowed, entry.never) = (allowed, never);
        }
    }

    /// Records a task's number in the lane of its ordering key.
    pub(crate) fn in_line(&self, id: &TaskId, key: usize, number: u64) {
        self.lock().entry(id.clone()).and_modify(|entry| entry.line = Some((key, number)));
    }

    /// Records the key of a task's limit.
    pub(crate) fn keyed(&self, id: &TaskId, key: u64) {
        self.lock().entry(id.clone()).and_modify(|entry| entry.key = Some(key));
    }

    /// How a task ended, if it has.
    pub(crate) fn outcome(&self, id: &TaskId) -> Option<Outcome> {
        self.lock().get(id)?.outcome.clone()
    }

    /// Records how a task ended.
    pub(crate) fn ended(&self, id: &TaskId, outcome: Outcome) {
        let earlier = self.lock().get_mut(id).map(|entry| entry.outcome.replace(outcome.clone()));
        if earlier.flatten().is_some_and(|earlier| earlier != outcome) {
            self.violation(format!("{id}: two handles report two outcomes, the second one {outcome:?}"));
        }
    }

    /// Records that a failed task runs again and must succeed, or time out once more if its timeout is short and the machine
    /// is slow. Returns `false` if that was already recorded.
    pub(crate) fn replayed(&self, id: &TaskId, result: Value) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(id).filter(|entry| !entry.replayed) else { return false };
        entry.allowed.retain(|outcome| matches!(outcome, Outcome::Failure(kind, _) if kind == "timeout"));
        entry.allowed.push(Outcome::Success(Some(result)));
        (entry.outcome, entry.replayed) = (None, true);
        true
    }

    /// Whether the sender of a task knows that it has failed.
    pub(crate) fn has_failed(&self, id: &TaskId) -> bool {
        self.lock().get(id).is_some_and(|entry| matches!(entry.outcome, Some(Outcome::Failure(..))))
    }

    /// Records a violation.
    pub(crate) fn violation(&self, text: String) {
        println!("violation: {text}");
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Number of tasks that were sent, and of those that have ended.
    pub(crate) fn count(&self) -> (usize, usize) {
        let entries = self.lock();
        (entries.len(), entries.values().filter(|entry| entry.outcome.is_some()).count())
    }

    /// All tasks.
    pub(crate) fn entries(&self) -> HashMap<TaskId, Entry> {
        self.lock().clone()
    }

    /// The violations so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
