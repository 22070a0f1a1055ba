//! Hand-ons in place: the same record asks again when it is due, so that those behind it wait.

use super::*;

/// A task whose first attempt failed, and whose second one is due in an hour.
async fn retrying(store: &dyn Subject) -> (TaskId, Handover) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &asked).await;
    let due = store.now_us().await.unwrap() / 1_000 + 3_600_000;
    let error: Option<Arc<str>> = Some(r#"{"kind":"error","message":"x","attempt":1}"#.into());
    let next = Arc::new(Next { status: Status::Retrying, attempt: 2, due, error, in_place: true });
    let run = Handover { lease: lease(&id, &asked, token, true), next };
    for sent in ["once", "twice"] {
        assert_eq!(only(store.hand_on(std::slice::from_ref(&run)).await), HandedOn::Recorded, "{sent}");
    }
    (id, run)
}

pub(super) async fn a_hand_on_in_place_keeps_the_record(store: &dyn Subject) {
    let (id, run) = retrying(store).await;
    let Handover { lease: Lease { ask: asked, held, .. }, next } = &run;
    let waiting = read(store, &id).await.unwrap();
    assert_eq!((waiting.status, waiting.seq, waiting.attempt), (Status::Retrying, 1, 2));
    assert_eq!((waiting.eta, &waiting.error, &waiting.worker), (Some(next.due), &next.error, &None));
    let ttl_ms = store.ttl_ms(&id).await;
    assert!(ttl_ms > ttl::WAITING + 3_590_000, "{ttl_ms}: seven days beyond its time");
    // Nobody gets it before, also not the one that gave it up.
    for by in ["w1", "w2"] {
        let told = claim(store, &worker(by), &id, asked).await;
        assert!(matches!(told, Claim::Held { ms_left: 3_590_000..=3_600_000, mine: false }), "{told:?}");
    }
    let verdict = store.complete(&[success(lease(&id, asked, held.token, true), "3")]).await;
    assert_eq!(only(verdict), Verdict::Stale, "the run had given the task up");
    assert_eq!(read(store, &id).await, Some(waiting.clone()), "nothing changed");
    let elsewhere = Next { in_place: false, ..(**next).clone() };
    let elsewhere = Handover { next: Arc::new(elsewhere), ..run.clone() };
    assert_eq!(only(store.hand_on(&[elsewhere]).await), HandedOn::Stale, "another hand-on than that one");
    // When it is due, the same record gets the next attempt, whoever brings it.
    store.plant(&id, Some(TaskState { eta: Some(1), ..waiting })).await;
    let told = claim(store, &worker("w2"), &id, &ask(1, 9)).await;
    let Claim::Granted { token, deliveries: 0, attempt: 2 } = told else { panic!("{told:?}") };
    assert_eq!(claim(store, &worker("w2"), &id, &ask(1, 9)).await, told, "sent twice");
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.attempt, state.error, state.eta), (Status::Running, 2, None, None));
    assert_eq!(state.hand_on, None);
    assert_eq!(only(store.hand_on(&[run]).await), HandedOn::Stale, "by now another run has it");
    // Given back, it is the same attempt.
    assert_eq!(only(store.release(&[lease(&id, &ask(1, 9), token, true)]).await), Verdict::Recorded);
    let told = claim(store, &worker("w1"), &id, &ask(1, 3)).await;
    assert!(matches!(told, Claim::Granted { deliveries: 0, attempt: 2, .. }), "{told:?}");
}

pub(super) async fn a_lost_record_can_be_kept_in_place(store: &dyn Subject) {
    let asked = ask(3, 1);
    let next = Next { status: Status::Scheduled, attempt: 1, due: 0, error: None, in_place: true };
    for (recent, told) in [(true, HandedOn::Recorded), (false, HandedOn::Stale)] {
        let id = TaskId::new();
        let run = Handover { lease: lease(&id, &asked, 7, recent), next: Arc::new(next.clone()) };
        assert_eq!(only(store.hand_on(&[run]).await), told);
        let state = read(store, &id).await.map(|state| (state.status, state.seq, state.hand_on));
        assert_eq!(state, recent.then_some((Status::Scheduled, 3, Some(HandOn::Stay))));
    }
}

pub(super) async fn revoke_of_what_waits_in_place(store: &dyn Subject) {
    let (id, run) = retrying(store).await;
    assert!(matches!(revoke(store, &id).await, Revocation::Revoked { .. }));
    assert_eq!(claim(store, &worker("w1"), &id, &run.lease.ask).await, Claim::Revoked);
    assert_eq!(only(store.hand_on(&[run]).await), HandedOn::Stale);
}
