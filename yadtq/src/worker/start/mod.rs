//! May a task run here, and now? The store grants claims; controls of operators and limits may still say no.
//!
//! ```text
//!  ready ─► claim ─► granted ─► admit ─┬─► runs (ready queue)
//!    ▲ │      │ held                   ├─► limits ─► runs, or waits
//!    │ │      └ asks again             └─► ends without running: purged, expired, disabled, unknown, early
//!    └─┴─ offered to workers that have free slots, while there is none here
//! ```

pub(super) mod claim;
pub(super) mod controls;
pub(super) mod limits;
pub(super) mod offers;
mod watch;

use std::{sync::Arc, time::Duration};

use self::{claim::Claims, controls::ControlsState, limits::Limits, offers::Offers};
use super::{effect::Ended, job::Job, options::Plan};
use crate::core::{
    controls::{Disabled, next_check_ms},
    names::WorkerId,
};

/// What decides whether tasks may run.
pub(super) struct Start {
    pub(super) claims: Claims,
    pub(super) controls: ControlsState,
    pub(super) limits: Limits,
    pub(super) offers: Offers,
}

/// What becomes of a task that was granted.
#[derive(Debug)]
pub(super) enum Admission {
    /// It may start as soon as there is a slot.
    Ready,
    /// The limits are to be asked.
    Limited,
    /// It does not start.
    Ends(Ended),
}

impl Start {
    pub(super) fn new(worker: &WorkerId, plan: &Arc<Plan>) -> Self {
        Self {
            claims: Claims::new(worker, plan.queues.len()),
            controls: ControlsState::new(worker),
            limits: Limits::new(worker, plan),
            offers: Offers::new(worker, plan),
        }
    }

    /// Decides what becomes of a task that was granted, and has crashed this many workers.
    pub(super) fn admit(&self, job: &Job, deliveries: u32, plan: &Plan, now_ms: u64) -> Admission {
        if let Some(ended) = self.overruled(job, deliveries, now_ms) {
            return Admission::Ends(ended);
        }
        match job.envelope.eta {
            // From a producer that knows no delayed tasks.
            Some(eta) if eta > now_ms => Admission::Ends(Ended::Waits(eta)),
            _ if job.definition.is_none() => Admission::Ends(Ended::UnknownTask),
            // Before it asks the limits, which would make it wait.
            _ if job.has_expired(now_ms) => Admission::Ends(Ended::Expired),
            _ if limits::is_limited(plan, job) => Admission::Limited,
            _ => Admission::Ready,
        }
    }

    /// What an operator has decided about a task that was granted.
    fn overruled(&self, job: &Job, deliveries: u32, now_ms: u64) -> Option<Ended> {
        let controls = self.controls.current();
        if self.controls.is_revoked(job) {
            return Some(Ended::Revoked);
        }
        if controls::is_purged(job, controls) {
            return Some(Ended::Purged);
        }
        let (disabled, since) = controls.disabled(&job.ask.task)?;
        Some(match disabled {
            _ if job.has_expired(now_ms) => Ended::Expired,
            // Under another record its crashes would count no more.
            Disabled::Wait if deliveries > 0 => {
                Ended::GivenBack(Duration::from_millis(next_check_ms(since, now_ms) - now_ms))
            }
            Disabled::Wait => Ended::Waits(next_check_ms(since, now_ms)),
            Disabled::DeadLetter => Ended::Disabled,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::controls::ControlRecord;

    const NOW: u64 = 1_000_000;

    fn admitted(record: &str, controls: &[ControlRecord]) -> String {
        admitted_after(0, record, controls)
    }

    fn admitted_after(deliveries: u32, record: &str, controls: &[ControlRecord]) -> String {
        let plan = Arc::new(Plan::for_test());
        let mut start = Start::new(&"w".into(), &plan);
        controls.iter().cloned().for_each(|control| start.controls.take(control));
        match start.admit(&Job::for_test(record), deliveries, &plan, NOW) {
            Admission::Ends(Ended::Waits(due)) => format!("waits +{}", due - NOW),
            Admission::Ends(ended) => format!("{ended:?}"),
            other => format!("{other:?}"),
        }
    }

    fn disable(then: Disabled) -> ControlRecord {
        ControlRecord::Disable { task: "noop".to_owned(), at: NOW, then }
    }

    #[test]
    fn what_nothing_holds_back_is_ready() {
        assert_eq!(admitted(r#"{"task-id":"t","task":"noop","args":[]}"#, &[]), "Ready");
    }

    #[test]
    fn an_unknown_or_early_task_does_not_start() {
        assert_eq!(admitted(r#"{"task-id":"t","task":"other","args":[]}"#, &[]), "UnknownTask");
        assert_eq!(admitted(r#"{"task-id":"t","task":"noop","args":[],"eta":1000007}"#, &[]), "waits +7");
        assert_eq!(admitted(r#"{"task-id":"t","task":"noop","args":[],"eta":1000000}"#, &[]), "Ready");
        assert_eq!(admitted(r#"{"task-id":"t","task":"noop","args":[],"expires":1000000}"#, &[]), "Expired");
    }

    #[test]
    fn a_disabled_task_waits_fails_or_has_expired() {
        let task = r#"{"task-id":"t","task":"noop","args":[]}"#;
        assert_eq!(admitted(task, &[disable(Disabled::Wait)]), "waits +5000");
        assert_eq!(admitted_after(1, task, &[disable(Disabled::Wait)]), "GivenBack(5s)", "its crashes stay counted");
        assert_eq!(admitted(task, &[disable(Disabled::DeadLetter)]), "Disabled");
        let expired = r#"{"task-id":"t","task":"noop","args":[],"expires":1000000}"#;
        assert_eq!(admitted(expired, &[disable(Disabled::DeadLetter)]), "Expired");
        let enabled = ControlRecord::Enable { task: "noop".to_owned(), at: NOW };
        assert_eq!(admitted(task, &[disable(Disabled::Wait), enabled]), "Ready");
    }

    #[test]
    fn a_purge_ends_what_is_below_its_mark() {
        let below = [(crate::core::priority::Priority::Normal, vec![(0, 1)])].into();
        let purge = ControlRecord::Purge { queue: "default".to_owned(), at: NOW, below };
        assert_eq!(admitted(r#"{"task-id":"t","task":"noop","args":[]}"#, &[purge]), "Purged");
    }
}
