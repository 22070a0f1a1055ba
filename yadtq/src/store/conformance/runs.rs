//! How runs end, go on, and are given back: all by their token.

use super::*;

pub(super) async fn complete_needs_the_token(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    for wrong in [token - 1, token + 1, 0] {
        let run = success(lease(&id, &ask, wrong, true), "3");
        assert_eq!(only(store.complete(&[run]).await), Verdict::Stale);
    }
    assert_eq!(read(store, &id).await.unwrap().status, Status::Running);
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, token, true), "3")]).await), Verdict::Recorded);
    assert_eq!(read(store, &id).await.unwrap().result.as_deref(), Some("3"));
}

pub(super) async fn complete_twice(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    let run = success(lease(&id, &ask, token, true), "3");
    assert_eq!(only(store.complete(std::slice::from_ref(&run)).await), Verdict::Recorded);
    let ended = read(store, &id).await;
    assert_eq!(only(store.complete(&[run]).await), Verdict::Recorded);
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, token, true), "4")]).await), Verdict::Recorded);
    assert_eq!(read(store, &id).await, ended);
    assert_eq!(only(store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &ask, token, true)]).await), Extended::Lost);
}

pub(super) async fn complete_of_a_lost_record(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(2, 1));
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, 9, false), "3")]).await), Verdict::Stale);
    assert_eq!(read(store, &id).await, None);
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, 9, true), "3")]).await), Verdict::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.seq, state.token, &*state.task), (Status::Success, 2, 9, "add"));
}

pub(super) async fn complete_drops_what_is_transient(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &ask).await;
    let error = Some(Arc::from(r#"{"kind":"error","message":"no","attempt":1}"#));
    let outcome = Outcome { status: Status::Failure, result: None, error: error.clone(), hand_on: Some(HandOn::Dead) };
    let run = Completion { outcome: Arc::new(outcome), ..success(lease(&id, &ask, token, true), "") };
    assert_eq!(only(store.complete(&[run]).await), Verdict::Recorded);
    let state = read(store, &id).await.unwrap();
    let kept = TaskState {
        status: Status::Failure,
        token,
        error,
        hand_on: Some(HandOn::Dead),
        queued_at: None,
        started_at: state.started_at,
        finished_at: state.finished_at,
        ..TaskState::queued("add".into(), "default".into(), 0)
    };
    assert!(state.finished_at >= state.started_at && state.started_at.is_some());
    assert_eq!(state, kept);
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

pub(super) async fn release_lets_others_claim(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &asked).await;
    let release = async |token| only(store.release(&[lease(&id, &asked, token, true)]).await);
    assert_eq!(release(token + 1).await, Verdict::Stale);
    assert_eq!(release(token).await, Verdict::Recorded);
    assert_eq!(release(token).await, Verdict::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.worker, state.deliveries), (Status::Queued, None, 0));
    assert!(matches!(claim(store, &worker("w2"), &id, &ask(1, 2)).await, Claim::Granted { deliveries: 0, .. }));
    assert_eq!(release(token).await, Verdict::Stale);
    assert_eq!(only(store.complete(&[success(lease(&id, &asked, token, true), "3")]).await), Verdict::Stale);
}

pub(super) async fn release_of_a_revoked_run(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    store.plant(&id, Some(TaskState { revoke: true, ..running(store, 30_000).await })).await;
    let release = async || only(store.release(&[lease(&id, &ask, 7, true)]).await);
    assert_eq!(release().await, Verdict::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.revoke, state.worker.as_deref()), (Status::Revoked, false, None));
    assert!(state.token > 7, "the run that was cut off would hear `recorded`");
    assert_eq!(release().await, Verdict::Recorded);
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, 7, true), "3")]).await), Verdict::Stale);
    assert_eq!(read(store, &id).await, Some(state));
}
