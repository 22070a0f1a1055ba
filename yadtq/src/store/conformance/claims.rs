//! Who may run: every row of the claim table, and what holds over a batch of claims.

use super::*;

/// Each row of the table: the record, who asks, and the answer. Sent again, the call gets the same answer.
pub(super) async fn claim_table(store: &dyn Subject) {
    let live = running(store, 30_000).await;
    let over = running(store, -1).await;
    let ended = |status| TaskState { status, worker: None, nonce: 0, lease_until: 0, ..live.clone() };
    let waiting = |status| TaskState { status, ..ended(Status::Queued) };
    let next = FollowUp::Next { attempt: 2, due: 0 };
    let error = Some(Arc::from(r#"{"kind":"error"}"#));
    let dead = TaskState { follow_up: Some(FollowUp::Dead), error, deliveries: 1, ..ended(Status::Failure) };
    let no_error = TaskState { error: None, ..dead.clone() };
    let publishing = |lease_left_ms: i64| TaskState {
        worker: Some("w1".into()),
        nonce: 1,
        lease_until: live.lease_until.saturating_add_signed(lease_left_ms - 30_000),
        ..dead.clone()
    };
    let answers_dead = |error: &str, deliveries| Claim::Dead { error: error.into(), deliveries };
    let crashed = r#"{"kind":"deliveries","message":"6 workers died while they ran it","attempt":1}"#;
    let timid = Claimer { take_over: false, ..worker("w2") };
    let full = Claimer { quarantine: 0, ..worker("w2") };
    let (w1, w2) = (worker("w1"), worker("w2"));
    let grant_as = |deliveries, attempt| Claim::Granted { token: 0, deliveries, attempt };
    let grant = |deliveries| grant_as(deliveries, 1);
    let held = |mine| Claim::Held { ms_left: 0, mine };
    let again = |attempt| Claim::Granted { token: 7, deliveries: 0, attempt };
    let staying = TaskState { follow_up: Some(FollowUp::Stay), eta: Some(1), ..waiting(Status::Retrying) };
    let soon = Some(store.now_us().await.unwrap() / 1_000 + LEASE_MS);

    let rows = [
        ("missing", None, &w2, ask(1, 2), grant(0)),
        ("queued", Some(waiting(Status::Queued)), &w2, ask(1, 2), grant(0)),
        ("retrying", Some(waiting(Status::Retrying)), &w2, ask(1, 2), grant(0)),
        ("scheduled", Some(waiting(Status::Scheduled)), &w2, ask(1, 2), grant(0)),
        (
            "queued, after crashes",
            Some(TaskState { deliveries: 3, ..waiting(Status::Queued) }),
            &w2,
            ask(1, 2),
            grant(3),
        ),
        (
            "rescheduled under the next seq",
            Some(TaskState { seq: 2, follow_up: Some(next), ..waiting(Status::Retrying) }),
            &w2,
            ask(1, 2),
            Claim::Moved { attempt: 2, due: 0, error: None },
        ),
        (
            "rescheduled, further",
            Some(TaskState { seq: 3, follow_up: Some(next), ..waiting(Status::Retrying) }),
            &w2,
            ask(1, 2),
            Claim::Done,
        ),
        ("higher seq", Some(TaskState { seq: 2, ..live.clone() }), &w2, ask(1, 2), Claim::Done),
        ("success", Some(ended(Status::Success)), &w2, ask(1, 2), Claim::Done),
        ("success, later seq asks", Some(ended(Status::Success)), &w2, ask(2, 2), Claim::Done),
        ("failure", Some(ended(Status::Failure)), &w2, ask(1, 2), Claim::Done),
        ("revoked", Some(ended(Status::Revoked)), &w2, ask(1, 2), Claim::Revoked),
        ("dead", Some(dead.clone()), &w2, ask(1, 2), answers_dead(r#"{"kind":"error"}"#, 1)),
        ("dead, published here", Some(publishing(30_000)), &w1, ask(1, 1), answers_dead(r#"{"kind":"error"}"#, 1)),
        ("dead, published here, another claim", Some(publishing(30_000)), &w1, ask(1, 2), held(true)),
        ("dead, published elsewhere", Some(publishing(30_000)), &w2, ask(1, 1), held(false)),
        ("dead, lease over", Some(publishing(-1)), &w2, ask(1, 2), answers_dead(r#"{"kind":"error"}"#, 1)),
        ("dead, lease over, here", Some(publishing(-1)), &w1, ask(1, 1), answers_dead(r#"{"kind":"error"}"#, 1)),
        ("dead, lease over, connected just now", Some(publishing(-1)), &timid, ask(1, 2), held(false)),
        ("dead, connected just now", Some(dead.clone()), &timid, ask(1, 2), answers_dead(r#"{"kind":"error"}"#, 1)),
        ("dead, no error kept", Some(no_error), &w2, ask(1, 2), answers_dead("null", 1)),
        (
            "rescheduled in place, not due",
            Some(TaskState { attempt: 2, eta: soon, ..staying.clone() }),
            &w2,
            ask(1, 2),
            held(false),
        ),
        (
            "rescheduled in place, due",
            Some(TaskState { attempt: 2, ..staying.clone() }),
            &w2,
            ask(1, 2),
            grant_as(0, 2),
        ),
        (
            "rescheduled in place, later seq asks",
            Some(TaskState { attempt: 2, eta: soon, ..staying }),
            &w2,
            ask(2, 2),
            grant(0),
        ),
        (
            "due later, fired early",
            Some(TaskState { eta: soon, ..waiting(Status::Scheduled) }),
            &w2,
            ask(1, 2),
            grant(0),
        ),
        (
            "given back in its third attempt",
            Some(TaskState { attempt: 3, ..waiting(Status::Queued) }),
            &w2,
            ask(1, 2),
            grant_as(0, 3),
        ),
        ("running here, same claim", Some(live.clone()), &w1, ask(1, 1), again(1)),
        (
            "running here, same claim, third attempt",
            Some(TaskState { attempt: 3, ..live.clone() }),
            &w1,
            ask(1, 1),
            again(3),
        ),
        ("lease over, third attempt", Some(TaskState { attempt: 3, ..over.clone() }), &w2, ask(1, 2), grant_as(1, 3)),
        ("running here, another claim", Some(live.clone()), &w1, ask(1, 2), held(true)),
        ("running elsewhere", Some(live.clone()), &w2, ask(1, 1), held(false)),
        ("running elsewhere, later seq asks", Some(live), &w2, ask(2, 1), held(false)),
        ("lease over", Some(over.clone()), &w2, ask(1, 2), grant(1)),
        ("lease over, here", Some(over.clone()), &w1, ask(1, 1), grant(1)),
        ("lease over, connected just now", Some(over.clone()), &timid, ask(1, 2), held(false)),
        ("lease over, revoked", Some(TaskState { revoke: true, ..over.clone() }), &w2, ask(1, 2), Claim::Revoked),
        ("lease over, second crash", Some(TaskState { deliveries: 1, ..over.clone() }), &w2, ask(1, 2), grant(2)),
        ("lease over, no slot", Some(TaskState { deliveries: 1, ..over.clone() }), &full, ask(1, 2), held(false)),
        ("lease over, too often", Some(TaskState { deliveries: 5, ..over }), &w2, ask(1, 2), answers_dead(crashed, 6)),
    ];
    for (row, planted, by, ask, expected) in rows {
        let id = TaskId::new();
        store.plant(&id, planted.clone()).await;
        for call in ["first", "second"] {
            let answer = claim(store, by, &id, &ask).await;
            assert!(same_claim(&answer, &expected), "{row}, {call} call: {answer:?}");
        }
        let (before, after) = (planted.map_or(0, |state| state.token), read(store, &id).await.unwrap());
        let ends_here = matches!(row, "lease over, revoked" | "lease over, too often");
        if ends_here || matches!(expected, Claim::Granted { token: 0, .. }) {
            assert!(after.token > before, "{row}: the token of the run that was cut off still counts");
        }
        assert_eq!(after.status.is_terminal(), !matches!(after.status, Status::Running | Status::Retrying), "{row}");
    }
}

/// Whether the answer to a claim is what the row says; 0 stands for any token or time.
pub(super) fn same_claim(answer: &Claim, row: &Claim) -> bool {
    match (answer, row) {
        (
            Claim::Granted { token, deliveries: a, attempt: x },
            Claim::Granted { token: 0, deliveries: b, attempt: y },
        ) => *token > 7 && a == b && x == y,
        (Claim::Held { ms_left, mine: a }, Claim::Held { mine: b, .. }) => (1..=LEASE_MS).contains(ms_left) && a == b,
        (answer, row) => answer == row,
    }
}

pub(super) async fn claim_twice(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 5));
    let first = claim(store, &worker("w1"), &id, &ask).await;
    let state = read(store, &id).await;
    assert_eq!(claim(store, &worker("w1"), &id, &ask).await, first);
    assert_eq!(read(store, &id).await, state);
    let state = state.unwrap();
    assert_eq!((state.status, state.worker, state.nonce), (Status::Running, Some("w1".into()), 5));
    assert_eq!((&*state.task, &*state.queue, state.seq, state.attempt), ("add", "default", 1, 1));
    let started_at = state.started_at.unwrap();
    assert_eq!(state.lease_until, started_at + LEASE_MS);
}

pub(super) async fn claim_keeps_the_order_of_a_batch(store: &dyn Subject) {
    let id = TaskId::new();
    let answers = store.claim(&worker("w1"), &[(id.clone(), ask(1, 1)), (id.clone(), ask(1, 2))]).await.unwrap();
    assert!(matches!(answers[0], Ok(Claim::Granted { .. })), "{answers:?}");
    assert!(matches!(answers[1], Ok(Claim::Held { mine: true, .. })), "{answers:?}");
}

pub(super) async fn quarantine_counts_over_a_batch(store: &dyn Subject) {
    let suspect = TaskState { deliveries: 1, ..running(store, -1).await };
    for (batch, slots) in [(4, 2), (600, 2), (600, 0)] {
        let ids = (0..batch).map(|_| TaskId::new()).collect::<Vec<_>>();
        // The suspects are the first and the last ones, so that they meet in no single call.
        let suspects = [0, 1, batch - 2, batch - 1];
        for at in suspects {
            store.plant(&ids[at], Some(suspect.clone())).await;
        }
        let by = Claimer { quarantine: slots, ..worker("w2") };
        let asks = ids.iter().map(|id| (id.clone(), ask(1, 2))).collect::<Vec<_>>();
        let answers = store.claim(&by, &asks).await.unwrap();
        let is_granted = |at: &usize| matches!(answers[*at], Ok(Claim::Granted { .. }));
        let slots = usize::try_from(slots).unwrap();
        assert_eq!((0..batch).filter(is_granted).count(), batch - 4 + slots);
        assert_eq!(suspects.iter().filter(|at| is_granted(at)).count(), slots);
        let again = store.claim(&by, &asks).await.unwrap();
        for (first, again) in answers.into_iter().zip(again) {
            assert_eq!(first.unwrap(), again.unwrap(), "sent twice");
        }
    }
}

pub(super) async fn a_suspect_that_is_granted_again_still_fills_its_slot(store: &dyn Subject) {
    let (mine, other) = (TaskId::new(), TaskId::new());
    store.plant(&mine, Some(TaskState { deliveries: 2, ..running(store, 60_000).await })).await;
    store.plant(&other, Some(TaskState { deliveries: 1, ..running(store, -1).await })).await;
    let by = Claimer { quarantine: 1, ..worker("w1") };
    let asks = [(mine, ask(1, 1)), (other.clone(), ask(1, 2))];
    let claims: Vec<Claim> = store.claim(&by, &asks).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert!(matches!(claims[..], [Claim::Granted { token: 7, .. }, Claim::Held { mine: false, .. }]), "{claims:?}");
    assert_eq!(read(store, &other).await.unwrap().deliveries, 1, "it has not run, so nothing is counted");
}

pub(super) async fn tokens_grow(store: &dyn Subject) {
    let id = TaskId::new();
    let first = granted(store, &id, &ask(1, 1)).await;
    let now_us = store.now_us().await.unwrap();
    assert!(first.abs_diff(now_us) < 60_000_000, "{first} is not near {now_us}");
    give_back(store, lease(&id, &ask(1, 1), first, true)).await;
    assert!(granted(store, &id, &ask(1, 2)).await > first);

    // The largest token that any clock has shown so far wins over this store's own clock.
    let ahead = 4_000_000_000_000_007;
    store.plant(&id, Some(TaskState { token: ahead, ..running(store, -1).await })).await;
    assert_eq!(granted(store, &id, &ask(1, 3)).await, ahead + 1);
    assert_eq!(read(store, &id).await.unwrap().token, ahead + 1);
}
