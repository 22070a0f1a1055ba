//! What waits: for another run under the next record, or revoked.

use super::*;

pub(super) async fn revoke(store: &dyn Subject, id: &TaskId) -> Revocation {
    only(store.revoke(std::slice::from_ref(id)).await)
}

pub(super) async fn revoke_of_what_waits(store: &dyn Subject) {
    let mut replies = open(store, "sender").await;
    let id = TaskId::new();
    let reply_to = Some("sender".into());
    let task = Submission { reply_to, ..submission(&id) };
    store.submit(&[task]).await.unwrap();
    assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: None });
    assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: None }, "sent twice");
    assert_eq!(claim(store, &worker("w1"), &id, &ask(1, 1)).await, Claim::Revoked);
    let state = read(store, &id).await.unwrap();
    let error = state.error.clone();
    assert!(error.as_deref().is_some_and(|error| error.contains(r#""kind":"revoked""#)), "{state:?}");
    let reply = Reply { id: id.clone(), task: Some("add".into()), status: Status::Revoked, result: None, error };
    assert_eq!(next(&mut replies).await, Notice::Replies(vec![reply]), "who sent it is notified at once");
    assert!(store.ttl_ms(&id).await > 6 * 24 * 3_600_000, "the marker outlives a record that waits for long");
}

pub(super) async fn a_retry_makes_way_for_the_next_record(store: &dyn Subject) {
    let (id, first) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &first).await;
    let due = store.now_us().await.unwrap() / 1_000 + 3_600_000;
    let error: Option<Arc<str>> = Some(r#"{"kind":"error","message":"x","attempt":1}"#.into());
    let next = End::retry(2, due, error.clone().unwrap());
    let held = ended(lease(&id, &first, token, true), next.clone());
    let stale = ended(lease(&id, &first, token - 1, true), next.clone());
    assert_eq!(finish(store, &stale).await, Finished::Stale);
    for sent in ["once", "twice"] {
        assert_eq!(finish(store, &held).await, Finished::Recorded, "{sent}");
        let state = read(store, &id).await.unwrap();
        assert_eq!((state.status, state.seq, state.attempt), (Status::Retrying, 2, 2));
        assert_eq!((state.eta, &state.error, state.worker), (Some(due), &error, None));
    }
    let ttl_ms = store.ttl_ms(&id).await;
    assert!(ttl_ms > ttl::WAITING + 3_590_000, "{ttl_ms}: seven days beyond its time");
    // The old record publishes the next one again, and only the next one runs.
    let moved = Claim::Moved { attempt: 2, due, error };
    assert_eq!(claim(store, &worker("w2"), &id, &first).await, moved);
    let late = succeed(store, lease(&id, &first, token, true), "3").await;
    assert_eq!(late, Finished::Stale, "the run had given the task up");
    let second = Arc::new(ClaimRequest { seq: 2, attempt: 2, nonce: 9, task: "add".into(), queue: "default".into() });
    let token = granted(store, &id, &second).await;
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.error, state.eta, state.follow_up), (Status::Running, None, Some(due), None));
    assert_eq!(finish(store, &held).await, Finished::Stale, "by now another run has it");
    assert_eq!(claim(store, &worker("w2"), &id, &first).await, Claim::Done);
    // A run that was asked to end does not go on.
    assert_eq!(revoke(store, &id).await, Revocation::Asked("w1".into()));
    assert_eq!(finish(store, &ended(lease(&id, &second, token, true), next)).await, Finished::Revoking);
    assert_eq!(read(store, &id).await.unwrap().status, Status::Running, "nothing changed");
}

pub(super) async fn a_lost_record_can_be_snoozed_while_its_lease_is_fresh(store: &dyn Subject) {
    let asked = ask(3, 1);
    for (recent, answer) in [(true, Finished::Recorded), (false, Finished::Stale)] {
        let id = TaskId::new();
        let run = ended(lease(&id, &asked, 7, recent), End::snooze(1, 0, None));
        assert_eq!(finish(store, &run).await, answer);
        assert_eq!(
            read(store, &id).await.map(|state| (state.status, state.seq)),
            recent.then_some((Status::Scheduled, 4))
        );
    }
}

pub(super) async fn revoke_of_what_waits_for_its_time(store: &dyn Subject) {
    let id = TaskId::new();
    let eta = store.now_us().await.unwrap() / 1_000 + 30 * 24 * 3_600_000;
    let task = Submission { eta: Some(eta), ..submission(&id) };
    store.submit(&[task]).await.unwrap();
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.eta), (Status::Scheduled, Some(eta)));
    for sent in ["once", "twice"] {
        assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: Some(Delayed { seq: 1, eta }) }, "{sent}");
        let ttl_ms = store.ttl_ms(&id).await;
        assert!(ttl_ms > ttl::WAITING + 29 * 24 * 3_600_000, "{ttl_ms}: the marker outlives the wait");
    }
    assert_eq!(claim(store, &worker("w1"), &id, &ask(1, 1)).await, Claim::Revoked);
}

pub(super) async fn an_end_is_remembered_as_long_as_another_record_waits(store: &dyn Subject) {
    let id = TaskId::new();
    let eta = store.now_us().await.unwrap() / 1_000 + 30 * 24 * 3_600_000;
    let task = Submission { eta: Some(eta), ..submission(&id) };
    store.submit(&[task]).await.unwrap();
    // Sent again under its id, without a delay.
    let now = ask(1, 1);
    let token = granted(store, &id, &now).await;
    let beyond = async |what: &str| {
        let ttl_ms = store.ttl_ms(&id).await;
        assert!(ttl_ms > ttl::WAITING + 29 * 24 * 3_600_000, "{ttl_ms}: {what}, even if nobody runs it for long");
    };
    beyond("granted").await;
    let extended = store.extend(&"w1".into(), 6_000, &[lease(&id, &now, token, true)]).await;
    assert_eq!(only(extended), Extended::Live);
    beyond("extended").await;
    assert_eq!(revoke(store, &id).await, Revocation::Asked("w1".into()));
    beyond("asked to end").await;
    assert_eq!(succeed(store, lease(&id, &now, token, true), "3").await, Finished::Recorded);
    let ttl_ms = store.ttl_ms(&id).await;
    assert!(ttl_ms > ttl::RESULT + 29 * 24 * 3_600_000, "{ttl_ms}: beyond the time of the other record");
    assert_eq!(claim(store, &worker("w2"), &id, &ask(1, 2)).await, Claim::Done);
}

/// Its queue may be paused for long, and another record of the task may wait for its time.
pub(super) async fn a_revoked_run_that_is_given_back_is_remembered_beyond_its_time(store: &dyn Subject) {
    let month_ms = 30 * 24 * 3_600_000;
    let eta = store.now_us().await.unwrap() / 1_000 + month_ms;
    for (eta, wait_ms) in [(None, 0), (Some(eta), month_ms)] {
        let (id, asked) = (TaskId::new(), ask(1, 1));
        store.submit(&[Submission { eta, ..submission(&id) }]).await.unwrap();
        let token = granted(store, &id, &asked).await;
        assert_eq!(revoke(store, &id).await, Revocation::Asked("w1".into()));
        assert_eq!(give_back(store, lease(&id, &asked, token, true)).await, Finished::Recorded);
        let ttl_ms = store.ttl_ms(&id).await;
        assert!(ttl_ms > ttl::WAITING + wait_ms - 10_000, "{ttl_ms}");
        assert_eq!(claim(store, &worker("w2"), &id, &ask(1, 2)).await, Claim::Revoked);
    }
}

pub(super) async fn revoke_of_a_run(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let mut control = store.control(&"w1".into()).await.unwrap();
    assert_eq!(next(&mut control).await, Notice::Missed);
    let token = granted(store, &id, &asked).await;
    for _ in 0..2 {
        assert_eq!(revoke(store, &id).await, Revocation::Asked("w1".into()));
        assert_eq!(next(&mut control).await, Notice::Revoke(vec![id.clone()]));
    }
    let held = [lease(&id, &asked, token, true)];
    let extended = store.extend(&"w1".into(), 6_000, &held).await;
    assert_eq!(only(extended), Extended::Revoking);
    let [held] = held;
    assert_eq!(succeed(store, held, "3").await, Finished::Recorded, "a success stays one");
    assert_eq!(revoke(store, &id).await, Revocation::Ended(Status::Success));
    assert_eq!(read(store, &id).await.unwrap().status, Status::Success);
}

pub(super) async fn revoke_of_what_nobody_has_seen(store: &dyn Subject) {
    let id = TaskId::new();
    for sent in ["once", "twice"] {
        assert_eq!(
            revoke(store, &id).await,
            Revocation::Revoked { delayed: Some(Delayed { seq: 1, eta: 0 }) },
            "{sent}: it may be delayed"
        );
    }
    store.submit(&[submission(&id)]).await.unwrap();
    assert_eq!(claim(store, &worker("w1"), &id, &ask(1, 1)).await, Claim::Revoked);
}
