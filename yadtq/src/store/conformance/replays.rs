//! Dead tasks that run again.

use super::*;

pub(super) async fn replay(store: &dyn Subject, id: &TaskId, seq: u64) -> Replay {
    let dead = DeadTask { id: id.clone(), seq, task: "add".into(), queue: "default".into() };
    only(store.replay(&[dead]).await)
}

/// A task that failed for good under `seq` 3.
pub(super) async fn dead(store: &dyn Subject, id: &TaskId) -> TaskState {
    let error = Some(r#"{"kind":"error"}"#.into());
    let task = TaskState { seq: 3, attempt: 4, deliveries: 2, error, ..running(store, 0).await };
    let task = TaskState { worker: None, nonce: 0, lease_until: 0, finished_at: task.queued_at, ..task };
    let task = TaskState { status: Status::Failure, follow_up: Some(FollowUp::Dead), ..task };
    store.plant(id, Some(task.clone())).await;
    task
}

pub(super) async fn a_replay_starts_over_under_the_next_seq(store: &dyn Subject) {
    let id = TaskId::new();
    let before = dead(store, &id).await;
    let mut after = Vec::new();
    for _ in 0..2 {
        assert_eq!(replay(store, &id, 3).await, Replay::Queued);
        after.push(read(store, &id).await.unwrap());
    }
    assert_eq!(after[0], after[1], "the second time changes nothing");
    let state = after.remove(0);
    let blank = TaskState::queued("add".into(), "default".into(), 0);
    let (token, queued_at) = (state.token, state.queued_at);
    let follow_up = Some(FollowUp::Next { attempt: 1, due: 0 });
    assert_eq!(state, TaskState { seq: 4, follow_up, token, queued_at, ..blank });
    assert!(token > before.token);
    assert!(store.ttl_ms(&id).await > ttl::WAITING - 10_000);
    // The record that died is read again: its worker publishes the next one for the operator.
    let moved = Claim::Moved { attempt: 1, due: 0, error: None };
    assert_eq!(claim(store, &worker("w1"), &id, &ask(3, 5)).await, moved);
    assert_eq!(claim(store, &worker("w1"), &id, &ask(2, 6)).await, Claim::Done);
    // A run that the replay cut off.
    assert_eq!(succeed(store, lease(&id, &ask(3, 1), before.token, true), "3").await, Finished::Stale);
    let token = granted(store, &id, &ask(4, 7)).await;
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.attempt, state.deliveries, state.follow_up), (Status::Running, 1, 0, None));
    assert_eq!(succeed(store, lease(&id, &ask(4, 7), token, true), "3").await, Finished::Recorded);
    assert_eq!(replay(store, &id, 3).await, Replay::Past(Status::Success));
}

pub(super) async fn a_replay_of_what_goes_on_or_has_not_failed_changes_nothing(store: &dyn Subject) {
    let live = running(store, 30_000).await;
    let queued = TaskState { status: Status::Queued, worker: None, nonce: 0, lease_until: 0, ..live.clone() };
    let next = Some(FollowUp::Next { attempt: 2, due: 0 });
    for (before, answer) in [
        (live.clone(), Replay::Refused(Status::Running)),
        (queued.clone(), Replay::Refused(Status::Queued)),
        (TaskState { status: Status::Success, ..queued.clone() }, Replay::Refused(Status::Success)),
        (TaskState { seq: 2, ..queued.clone() }, Replay::Past(Status::Queued)),
        (TaskState { seq: 2, ..live }, Replay::Past(Status::Running)),
        (
            TaskState { seq: 2, follow_up: next, status: Status::Retrying, ..queued.clone() },
            Replay::Past(Status::Retrying),
        ),
        (TaskState { seq: 3, follow_up: next, ..queued.clone() }, Replay::Past(Status::Queued)),
        // Another dead letter of it says how it failed there.
        (
            TaskState { seq: 2, follow_up: Some(FollowUp::Dead), status: Status::Failure, ..queued },
            Replay::Past(Status::Failure),
        ),
    ] {
        let id = TaskId::new();
        store.plant(&id, Some(before.clone())).await;
        for _ in 0..2 {
            assert_eq!(replay(store, &id, 1).await, answer, "{before:?}");
            assert_eq!(read(store, &id).await.as_ref(), Some(&before));
        }
    }
}

pub(super) async fn a_replay_lifts_a_revocation_and_needs_no_memory(store: &dyn Subject) {
    for is_revoked in [false, true] {
        let id = TaskId::new();
        if is_revoked {
            assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: Some(Delayed { seq: 1, eta: 0 }) });
        }
        for _ in 0..2 {
            assert_eq!(replay(store, &id, 1).await, Replay::Queued);
        }
        let state = read(store, &id).await.unwrap();
        assert_eq!((state.status, state.seq, &*state.task), (Status::Queued, 2, "add"));
        granted(store, &id, &ask(2, 1)).await;
        // One that is revoked later stays so.
        store.plant(&id, Some(state)).await;
        assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: None });
        assert_eq!(replay(store, &id, 1).await, Replay::Past(Status::Revoked));
    }
}
