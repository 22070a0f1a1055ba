//! What was sent, how it may end, and how it ended.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use yadtq::{Error, TaskId};

/// How a task ended, as its handle tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With this result, if it was kept.
    Success(Option<Value>),
    /// With an error of this kind, after so many attempts.
    Failure(String, u32),
    /// From outside.
    Revoked,
    /// As no task may end.
    Odd(String),
}

impl Outcome {
    /// The status that goes with it.
    pub fn status(&self) -> &'static str {
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
            Err(Error::Revoked { .. }) => Self::Revoked,
            Err(other) => Self::Odd(other.to_string()),
        }
    }
}

/// One task.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its kind in the load.
    pub kind: &'static str,
    /// How it may end.
    pub allowed: Vec<Outcome>,
    /// Before this time it must not start, in ms since the Unix epoch.
    pub not_before: u64,
    /// Whether it must never start.
    pub never: bool,
    /// Its ordering key, and its number in that line.
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
pub struct Ledger {
    entries: Mutex<HashMap<TaskId, Entry>>,
    violations: Mutex<Vec<String>>,
}

impl Ledger {
    /// Notes a task that was sent. One that is known already stays as it is.
    pub fn sent(&self, id: &TaskId, kind: &'static str, allowed: Vec<Outcome>, not_before: u64) {
        let entry =
            Entry { kind, allowed, not_before, never: false, line: None, key: None, outcome: None, replayed: false };
        self.lock().entry(id.clone()).or_insert(entry);
    }

    /// Narrows down, or changes, how a task may end.
    pub fn may_end(&self, id: &TaskId, allowed: Vec<Outcome>, never: bool) {
        if let Some(entry) = self.lock().get_mut(id) {
            (entry.allowed, entry.never) = (allowed, never);
        }
    }

    /// Notes where in the line of its ordering key a task stands.
    pub fn in_line(&self, id: &TaskId, key: usize, number: u64) {
        self.lock().entry(id.clone()).and_modify(|entry| entry.line = Some((key, number)));
    }

    /// Notes the key of a task's limit.
    pub fn keyed(&self, id: &TaskId, key: u64) {
        self.lock().entry(id.clone()).and_modify(|entry| entry.key = Some(key));
    }

    /// How a task ended, if it has.
    pub fn outcome(&self, id: &TaskId) -> Option<Outcome> {
        self.lock().get(id)?.outcome.clone()
    }

    /// Notes how a task ended.
    pub fn ended(&self, id: &TaskId, outcome: Outcome) {
        let told = self.lock().get_mut(id).map(|entry| entry.outcome.replace(outcome.clone()));
        if told.flatten().is_some_and(|earlier| earlier != outcome) {
            self.violation(format!("{id}: two handles tell two outcomes, the second one {outcome:?}"));
        }
    }

    /// Notes that a task which had failed runs again, and must succeed; or once more take too long, if it has little time
    /// and the machine is slow. `false`: that was noted already.
    pub fn replayed(&self, id: &TaskId, result: Value) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(id).filter(|entry| !entry.replayed) else { return false };
        entry.allowed.retain(|outcome| matches!(outcome, Outcome::Failure(kind, _) if kind == "timeout"));
        entry.allowed.push(Outcome::Success(Some(result)));
        (entry.outcome, entry.replayed) = (None, true);
        true
    }

    /// Whether the sender of a task knows that it has failed.
    pub fn has_failed(&self, id: &TaskId) -> bool {
        self.lock().get(id).is_some_and(|entry| matches!(entry.outcome, Some(Outcome::Failure(..))))
    }

    /// Something that must not be.
    pub fn violation(&self, text: String) {
        println!("violation: {text}");
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// How many were sent, and how many of them have ended.
    pub fn count(&self) -> (usize, usize) {
        let entries = self.lock();
        (entries.len(), entries.values().filter(|entry| entry.outcome.is_some()).count())
    }

    /// All tasks.
    pub fn entries(&self) -> HashMap<TaskId, Entry> {
        self.lock().clone()
    }

    /// What must not have been.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
