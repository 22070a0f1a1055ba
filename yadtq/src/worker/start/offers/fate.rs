//! What the store says of a record that was offered.

use std::time::Duration;

use crate::{
    core::{
        lifecycle::{Status, TaskState},
        names::WorkerId,
    },
    worker::job::Job,
};

/// What the store says of an offered record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Fate {
    /// Another worker runs it, and its lease is alive for this long.
    Runs { by: Option<WorkerId>, left: Duration },
    /// It has ended, or goes on under another record: a claim will not be granted.
    Ended,
    /// Anybody may claim it.
    Ready,
    /// The store does not know the task. Anybody may claim it, even if a worker runs it and the store was emptied meanwhile.
    Absent,
}

impl Fate {
    /// `worker`: the owner. `now_ms`: the time on the store's clock.
    pub(in crate::worker) fn of(state: Option<&TaskState>, job: &Job, worker: &str, now_ms: u64) -> Self {
        let Some(state) = state else { return Self::Absent };
        match state.status {
            _ if state.seq > job.ask.seq => Self::Ended,
            Status::Success | Status::Failure | Status::Revoked => Self::Ended,
            // Granted to this worker itself, by a claim whose answer was lost.
            Status::Running if state.worker.as_deref() == Some(worker) => Self::Ready,
            Status::Running if state.lease_until > now_ms => {
                Self::Runs { by: state.worker.clone(), left: Duration::from_millis(state.lease_until - now_ms) }
            }
            _ => Self::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fate_of_a_record_is_what_a_claim_would_say() {
        let job = Job::for_test(r#"{"task-id":"t","task":"noop","args":[],"seq":2}"#);
        let state = |status, seq, worker: &str, lease_until| TaskState {
            status,
            seq,
            worker: Some(worker.into()),
            lease_until,
            ..TaskState::queued("noop".into(), "default".into(), 0)
        };
        let fate = |state: &TaskState| Fate::of(Some(state), &job, "me", 1_000);
        let runs = Fate::Runs { by: Some("r".into()), left: Duration::from_millis(500) };
        assert_eq!(fate(&state(Status::Running, 2, "r", 1_500)), runs);
        assert_eq!(fate(&state(Status::Running, 2, "r", 1_000)), Fate::Ready);
        assert_eq!(fate(&state(Status::Running, 2, "me", 1_500)), Fate::Ready);
        assert_eq!(fate(&state(Status::Running, 3, "r", 1_500)), Fate::Ended);
        assert_eq!(fate(&state(Status::Success, 2, "r", 0)), Fate::Ended);
        assert_eq!(fate(&state(Status::Queued, 2, "r", 0)), Fate::Ready);
        assert_eq!(fate(&state(Status::Retrying, 3, "r", 0)), Fate::Ended);
        assert_eq!(Fate::of(None, &job, "me", 0), Fate::Absent);
    }
}
