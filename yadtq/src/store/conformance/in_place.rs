//! Retries and snoozes in place: the same record asks again when it is due, so that those behind it wait.

use super::*;

/// A task whose first attempt failed, and whose second one is due in an hour.
async fn retrying(store: &dyn Subject) -> (TaskId, Finish, End) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &asked).await;
    let due = store.now_us().await.unwrap() / 1_000 + 3_600_000;
    let elsewhere = End::retry(2, due, r#"{"kind":"error","message":"x","attempt":1}"#.into());
    let run = ended(lease(&id, &asked, token, true), elsewhere.clone().in_place());
    for sent in ["once", "twice"] {
        assert_eq!(finish(store, &run).await, Finished::Recorded, "{sent}");
    }
    (id, run, elsewhere)
}

pub(super) async fn a_retry_in_place_keeps_the_record(store: &dyn Subject) {
    let (id, run, elsewhere) = retrying(store).await;
    let Finish { lease: Lease { ask: asked, held, .. }, end, .. } = &run;
    let next = end.next().unwrap();
    let waiting = read(store, &id).await.unwrap();
    assert_eq!((waiting.status, waiting.seq, waiting.attempt), (Status::Retrying, 1, 2));
    assert_eq!((waiting.eta, &waiting.error, &waiting.worker), (Some(next.due), &end.error().cloned(), &None));
    let ttl_ms = store.ttl_ms(&id).await;
    assert!(ttl_ms > ttl::WAITING + 3_590_000, "{ttl_ms}: seven days beyond its time");
    // Nobody gets it before, not even the worker that gave it up.
    for by in ["w1", "w2"] {
        let answer = claim(store, &worker(by), &id, asked).await;
        assert!(matches!(answer, Claim::Held { ms_left: 3_590_000..=3_600_000, mine: false }), "{answer:?}");
    }
    let late = succeed(store, lease(&id, asked, held.token, true), "3").await;
    assert_eq!(late, Finished::Stale, "the run had given the task up");
    assert_eq!(read(store, &id).await, Some(waiting.clone()), "nothing changed");
    let elsewhere = finish(store, &ended(run.lease.clone(), elsewhere)).await;
    assert_eq!(elsewhere, Finished::Stale, "another end than that one");
    // When it is due, the same record gets the next attempt, whoever brings it.
    store.plant(&id, Some(TaskState { eta: Some(1), ..waiting })).await;
    let answer = claim(store, &worker("w2"), &id, &ask(1, 9)).await;
    let Claim::Granted { token, deliveries: 0, attempt: 2 } = answer else { panic!("{answer:?}") };
    assert_eq!(claim(store, &worker("w2"), &id, &ask(1, 9)).await, answer, "sent twice");
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.attempt, state.error, state.eta), (Status::Running, 2, None, None));
    assert_eq!(state.follow_up, None);
    assert_eq!(finish(store, &run).await, Finished::Stale, "by now another run has it");
    // Given back, it is the same attempt.
    assert_eq!(give_back(store, lease(&id, &ask(1, 9), token, true)).await, Finished::Recorded);
    let answer = claim(store, &worker("w1"), &id, &ask(1, 3)).await;
    assert!(matches!(answer, Claim::Granted { deliveries: 0, attempt: 2, .. }), "{answer:?}");
}

pub(super) async fn a_lost_record_can_be_snoozed_in_place(store: &dyn Subject) {
    let asked = ask(3, 1);
    for (recent, answer) in [(true, Finished::Recorded), (false, Finished::Stale)] {
        let id = TaskId::new();
        let run = ended(lease(&id, &asked, 7, recent), End::snooze(1, 0, None).in_place());
        assert_eq!(finish(store, &run).await, answer);
        let state = read(store, &id).await.map(|state| (state.status, state.seq, state.follow_up));
        assert_eq!(state, recent.then_some((Status::Scheduled, 3, Some(FollowUp::Stay))));
    }
}

pub(super) async fn revoke_of_what_waits_in_place(store: &dyn Subject) {
    let (id, run, _) = retrying(store).await;
    assert!(matches!(revoke(store, &id).await, Revocation::Revoked { .. }));
    assert_eq!(claim(store, &worker("w1"), &id, &run.lease.ask).await, Claim::Revoked);
    assert_eq!(finish(store, &run).await, Finished::Stale);
}
