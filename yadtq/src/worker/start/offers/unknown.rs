//! Records of tasks that this worker does not know: for a while they wait for a worker that does.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::worker::{
    job::{Job, SourceId},
    runs::LONGEST_TIMER,
};

/// The most records that wait. More count as unknown at once.
const MOST_WAITING: usize = 1_024;
/// How often an unknown name is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Records of unknown tasks.
pub(in crate::worker) struct Unknown {
    /// How long a record waits.
    grace: Duration,
    /// With the time at which each counts as unknown, in order.
    waiting: VecDeque<(Instant, Arc<Job>)>,
    /// When the name of a task was logged last.
    logged: HashMap<Arc<str>, Instant>,
}

impl Unknown {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace: grace.min(LONGEST_TIMER), waiting: VecDeque::new(), logged: HashMap::new() }
    }

    /// Whether it is to be logged that nobody knows this task: once a minute.
    pub(in crate::worker) fn is_news(&mut self, task: &Arc<str>, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < LOG_INTERVAL;
        if self.logged.get(task).is_some_and(is_recent) {
            return false;
        }
        // Anybody may send any name.
        if self.logged.len() >= MOST_WAITING {
            self.logged.clear();
        }
        self.logged.insert(Arc::clone(task), now);
        true
    }

    /// The record waits for a worker that knows its task. If it does not, it is returned: because this worker knows the task
    /// itself, the record must keep its place, it has waited for long enough, even if it was offered meanwhile, or too many wait.
    pub(in crate::worker) fn wait(&mut self, mut job: Arc<Job>, now: Instant) -> Option<Arc<Job>> {
        let has_waited = job.unknown_at.is_some_and(|at| at <= now);
        if !job.may_be_offered() || job.definition.is_some() || has_waited || self.waiting.len() >= MOST_WAITING {
            return Some(job);
        }
        let until = job.unknown_at.unwrap_or(now + self.grace);
        if job.unknown_at.is_none() {
            Arc::make_mut(&mut job).unknown_at = Some(until);
        }
        let place = self.waiting.partition_point(|(at, _)| *at <= until);
        self.waiting.insert(place, (until, job));
        None
    }

    /// Whether the record waits here.
    pub(in crate::worker) fn contains(&self, job: &Job) -> bool {
        self.waiting.iter().any(|(_, waiting)| waiting.at == job.at)
    }

    /// These partitions belong to another worker now: what waits of them goes.
    pub(in crate::worker) fn revoked(&mut self, source: SourceId, partitions: &[i32]) {
        self.waiting.retain(|(_, job)| job.at.source != source || !partitions.contains(&job.at.partition));
    }

    /// The records that wait.
    pub(in crate::worker) fn waiting(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.waiting.iter().map(|(_, job)| job)
    }

    /// Takes out records for which `which` holds, at most this many.
    pub(in crate::worker) fn take(&mut self, most: usize, which: impl Fn(&Job) -> bool) -> Vec<Arc<Job>> {
        let mut taken = Vec::new();
        self.waiting.retain(|(_, job)| {
            let takes = taken.len() < most && which(job);
            if takes {
                taken.push(Arc::clone(job));
            }
            !takes
        });
        taken
    }

    /// The next record whose wait is over: its task counts as unknown.
    pub(in crate::worker) fn due(&mut self, now: Instant) -> Option<Arc<Job>> {
        let is_due = self.waiting.front().is_some_and(|(at, _)| *at <= now);
        if is_due { self.waiting.pop_front().map(|(_, job)| job) } else { None }
    }

    /// When [`due`](Self::due) returns one.
    pub(in crate::worker) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_tasks_wait_and_not_for_long() {
        let (mut unknown, now) = (Unknown::new(Duration::from_secs(5)), Instant::now());
        let mut wait = |record: &str| unknown.wait(Arc::new(Job::for_test(record)), now).is_none();
        assert!(wait(r#"{"task-id":"a","task":"other","args":[]}"#));
        assert!(wait(r#"{"task-id":"b","task":"third","args":[]}"#));
        assert!(!wait(r#"{"task-id":"c","task":"noop","args":[]}"#), "known");
        assert!(!wait(r#"{"task-id":"d","task":"other","args":[],"ordering-key":"k"}"#), "keeps its place");
        assert_eq!(unknown.waiting().count(), 2);
        let taken = unknown.take(9, |job| &*job.ask.task == "third");
        assert_eq!(taken.iter().map(|job| job.envelope.id.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(unknown.due(now).is_none());
        let due = unknown.next_due().unwrap();
        assert_eq!(unknown.due(due).unwrap().envelope.id.as_str(), "a");
        assert!(unknown.due(due).is_none() && unknown.next_due().is_none());
    }

    #[test]
    fn a_record_that_comes_back_waits_no_longer_than_at_first() {
        let (mut unknown, now) = (Unknown::new(Duration::from_secs(5)), Instant::now());
        let job = |id| Arc::new(Job::for_test(&format!(r#"{{"task-id":"{id}","task":"other","args":[]}}"#)));
        assert!(unknown.wait(job("a"), now).is_none());
        let offered = unknown.take(1, |_| true).remove(0);
        let later = now + Duration::from_secs(1);
        assert!(unknown.wait(job("b"), later).is_none() && unknown.wait(Arc::clone(&offered), later).is_none());
        assert_eq!(unknown.next_due(), Some(now + Duration::from_secs(5)), "it is the first again");
        assert_eq!(unknown.due(now + Duration::from_secs(5)).unwrap().envelope.id.as_str(), "a");
        assert!(unknown.wait(offered, now + Duration::from_secs(5)).is_some());
    }

    #[test]
    fn what_waits_goes_with_its_partition() {
        let (mut unknown, now) = (Unknown::new(Duration::from_secs(5)), Instant::now());
        let job = Job::for_test(r#"{"task-id":"a","task":"other","args":[]}"#);
        assert!(unknown.wait(Arc::new(job.clone()), now).is_none());
        unknown.revoked(job.at.source, &[1]);
        assert!(unknown.contains(&job));
        unknown.revoked(job.at.source, &[0]);
        assert!(!unknown.contains(&job) && unknown.next_due().is_none());
    }
}
