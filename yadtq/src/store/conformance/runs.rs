//! How runs end, go on, and are given back: all by their token.

use super::*;

pub(super) async fn success_needs_the_token(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    for wrong in [token - 1, token + 1, 0] {
        let run = success(lease(&id, &ask, wrong, true), "3");
        assert_eq!(finish(store, &run).await, Finished::Stale);
    }
    assert_eq!(read(store, &id).await.unwrap().status, Status::Running);
    assert_eq!(succeed(store, lease(&id, &ask, token, true), "3").await, Finished::Recorded);
    assert_eq!(read(store, &id).await.unwrap().result.as_deref(), Some("3"));
}

pub(super) async fn success_twice(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    let run = success(lease(&id, &ask, token, true), "3");
    assert_eq!(finish(store, &run).await, Finished::Recorded);
    let state = read(store, &id).await;
    assert_eq!(finish(store, &run).await, Finished::Recorded);
    assert_eq!(succeed(store, lease(&id, &ask, token, true), "4").await, Finished::Recorded);
    assert_eq!(read(store, &id).await, state);
    assert_eq!(only(store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &ask, token, true)]).await), Extended::Lost);
}

pub(super) async fn success_of_a_lost_record(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(2, 1));
    assert_eq!(succeed(store, lease(&id, &ask, 9, false), "3").await, Finished::Stale);
    assert_eq!(read(store, &id).await, None);
    assert_eq!(succeed(store, lease(&id, &ask, 9, true), "3").await, Finished::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.seq, state.token, &*state.task), (Status::Success, 2, 9, "add"));
}

pub(super) async fn failure_drops_what_is_transient(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    let error: Arc<str> = r#"{"kind":"error","message":"no","attempt":1}"#.into();
    let run = ended(lease(&id, &ask, token, true), End::failed(Arc::clone(&error)));
    assert_eq!(finish(store, &run).await, Finished::Recorded);
    let state = read(store, &id).await.unwrap();
    let kept = TaskState {
        status: Status::Failure,
        token,
        // Until the dead letter is published.
        worker: Some("w1".into()),
        nonce: 1,
        lease_until: state.lease_until,
        error: Some(error),
        follow_up: Some(FollowUp::Dead),
        queued_at: None,
        started_at: state.started_at,
        finished_at: state.finished_at,
        ..TaskState::queued("add".into(), "default".into(), 0)
    };
    assert!(state.finished_at >= state.started_at && state.started_at.is_some());
    assert_eq!(state.lease_until, state.started_at.unwrap() + LEASE_MS);
    assert_eq!(state, kept);
}

pub(super) async fn a_dead_letter_is_published_by_one_worker_until_that_is_noted(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(2, 1));
    let noted = async |seq| only(store.dead_lettered(&[(id.clone(), seq)]).await);
    assert!(!noted(2).await, "nothing is known of it");
    assert_eq!(read(store, &id).await, None);
    let token = granted(store, &id, &asked).await;
    assert!(!noted(2).await, "it runs");
    let failed = Finish { ttl_ms: ttl::MARKER, ..ended(lease(&id, &asked, token, true), End::failed("null".into())) };
    assert_eq!(finish(store, &failed).await, Finished::Recorded);
    let before = read(store, &id).await.unwrap();
    for (by, nonce) in [("w1", 2), ("w2", 1)] {
        let held = claim(store, &worker(by), &id, &ask(2, nonce)).await;
        assert!(matches!(held, Claim::Held { ms_left: 1.., mine } if mine == (by == "w1")), "{held:?}");
    }
    assert!(!noted(1).await, "an earlier record of it");
    assert_eq!(read(store, &id).await.unwrap(), before);
    assert!(noted(2).await && noted(2).await);
    let after = TaskState { follow_up: None, worker: None, nonce: 0, lease_until: 0, ..before };
    assert_eq!(read(store, &id).await, Some(after));
    assert_eq!(claim(store, &worker("w2"), &id, &ask(2, 1)).await, Claim::Done);
    assert!(store.ttl_ms(&id).await <= ttl::MARKER, "it lives no longer for that");
    let dead = DeadTask { id: id.clone(), seq: 2, task: "add".into(), queue: "default".into() };
    assert_eq!(only(store.replay(&[dead]).await), Replay::Queued);
    assert!(!noted(2).await, "it goes on");
}

pub(super) async fn extend_needs_the_token(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    let extend = async |token| only(store.extend(&"w1".into(), 2 * LEASE_MS, &[lease(&id, &ask, token, true)]).await);
    let before = read(store, &id).await.unwrap();
    assert_eq!(extend(token + 1).await, Extended::Lost);
    assert_eq!(read(store, &id).await.unwrap(), before);
    assert_eq!(extend(token).await, Extended::Live);
    assert_eq!(extend(token).await, Extended::Live);
    assert!(read(store, &id).await.unwrap().lease_until >= before.lease_until + LEASE_MS);
    store.plant(&id, Some(TaskState { revoke: true, ..before })).await;
    assert_eq!(extend(token).await, Extended::Revoking);
    assert_eq!(extend(token).await, Extended::Revoking);
}

pub(super) async fn extend_makes_a_lost_record_again(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(3, 4));
    let extend = async |recent| only(store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &asked, 9, recent)]).await);
    assert_eq!(extend(false).await, Extended::Lost);
    assert_eq!(read(store, &id).await, None);
    assert_eq!(extend(true).await, Extended::Live);
    assert_eq!(extend(true).await, Extended::Live);
    assert_eq!(claim(store, &worker("w1"), &id, &asked).await, Claim::Granted { token: 9, deliveries: 0, attempt: 1 });
    assert!(matches!(claim(store, &worker("w2"), &id, &ask(3, 4)).await, Claim::Held { mine: false, .. }));
}

pub(super) async fn a_task_given_back_can_be_claimed(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &asked).await;
    let give_back = async |token| give_back(store, lease(&id, &asked, token, true)).await;
    assert_eq!(give_back(token + 1).await, Finished::Stale);
    assert_eq!(give_back(token).await, Finished::Recorded);
    assert_eq!(give_back(token).await, Finished::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.worker, state.deliveries), (Status::Queued, None, 0));
    assert!(matches!(claim(store, &worker("w2"), &id, &ask(1, 2)).await, Claim::Granted { deliveries: 0, .. }));
    assert_eq!(give_back(token).await, Finished::Stale);
    assert_eq!(succeed(store, lease(&id, &asked, token, true), "3").await, Finished::Stale);
}

pub(super) async fn a_revoked_task_given_back_has_ended(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    store.plant(&id, Some(TaskState { revoke: true, ..running(store, 30_000).await })).await;
    let give_back = async || give_back(store, lease(&id, &ask, 7, true)).await;
    assert_eq!(give_back().await, Finished::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.revoke, state.worker.as_deref()), (Status::Revoked, false, None));
    assert!(state.token > 7, "the run that was cut off would be answered `recorded`");
    assert_eq!(give_back().await, Finished::Recorded);
    assert_eq!(succeed(store, lease(&id, &ask, 7, true), "3").await, Finished::Stale);
    assert_eq!(read(store, &id).await, Some(state));
}

pub(super) async fn what_goes_on_under_its_record_can_be_carried(store: &dyn Subject) {
    let id = TaskId::new();
    let carry = async |seq| only(store.carry(&[(id.clone(), seq)]).await);
    assert!(!carry(1).await, "nothing is known of it");
    assert_eq!(read(store, &id).await, None);
    store.submit(&[submission(&id)]).await.unwrap();
    assert!(carry(1).await && carry(1).await, "it waits");
    let asked = ask(1, 1);
    let token = granted(store, &id, &asked).await;
    let before = read(store, &id).await.unwrap();
    assert!(before.carried && carry(1).await);
    assert_eq!(read(store, &id).await, Some(before), "the run goes on");
    assert!(!carry(2).await && !carry(0).await, "other records");
    let retry = End::retry(2, 0, "null".into());
    assert_eq!(finish(store, &ended(lease(&id, &asked, token, true), retry)).await, Finished::Recorded);
    assert!(!carry(1).await, "it goes on under another one");
    assert!(read(store, &id).await.unwrap().carried, "the copy may still come");
}

pub(super) async fn the_end_of_a_carried_task_is_remembered_for_a_week(store: &dyn Subject) {
    let id = TaskId::new();
    let lives_for = async |ttl_ms: u64| {
        let left = store.ttl_ms(&id).await;
        assert!((ttl_ms - 10_000..=ttl_ms).contains(&left), "{left} of {ttl_ms}");
    };
    let granted = async |seq, nonce| {
        let asked = ask(seq, nonce);
        let token = granted(store, &id, &asked).await;
        lease(&id, &asked, token, true)
    };
    let carry = async |seq| assert!(only(store.carry(&[(id.clone(), seq)]).await));
    let run = granted(1, 1).await;
    carry(1).await;
    let error: Arc<str> = "null".into();
    let failed = Finish { ttl_ms: ttl::MARKER, ..ended(run, End::failed(error)) };
    assert_eq!(finish(store, &failed).await, Finished::Recorded);
    lives_for(ttl::WAITING).await;
    let dead = DeadTask { id: id.clone(), seq: 1, task: "add".into(), queue: "default".into() };
    assert_eq!(only(store.replay(&[dead]).await), Replay::Queued);
    let run = granted(2, 1).await;
    let succeeded = Finish { ttl_ms: 2 * ttl::WAITING, ..success(run, "3") };
    assert_eq!(finish(store, &succeeded).await, Finished::Recorded);
    lives_for(2 * ttl::WAITING).await;

    store.plant(&id, Some(TaskState { deliveries: 5, carried: true, ..running(store, -1).await })).await;
    assert!(matches!(claim(store, &worker("w2"), &id, &ask(1, 2)).await, Claim::Dead { .. }));
    lives_for(ttl::WAITING).await;
    store.plant(&id, Some(TaskState { revoke: true, carried: true, ..running(store, 30_000).await })).await;
    assert_eq!(give_back(store, lease(&id, &ask(1, 1), 7, true)).await, Finished::Recorded);
    lives_for(ttl::WAITING).await;
}
