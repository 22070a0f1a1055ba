//! What every store must do, run on each of them.
#![allow(clippy::unwrap_used)]

mod in_place;
mod limits;
mod periodic;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;

use self::{
    in_place::{
        a_hand_on_in_place_keeps_the_record, a_lost_record_can_be_kept_in_place, revoke_of_what_waits_in_place,
    },
    limits::{
        admissions_are_as_the_pure_function_says, limits_are_told_apart, places_are_as_the_pure_function_says,
        what_is_vacated_is_free,
    },
    periodic::{
        declarations_are_as_the_pure_function_says, periodic_tasks_are_listed_by_name,
        the_latest_acknowledged_tick_only_grows,
    },
};
use super::{
    Completion, Handover, Lease, MAX_WAITERS, Notice, Replies, Reply, Report, Reservation, Revival, Store, StoreError,
    Submission, WorkerInfo,
    memory::MemoryStore,
    redis::testing::{cluster_for_test, redis_for_test},
    ttl,
};
use crate::{
    clock::SystemClock,
    core::{
        lifecycle::{
            Ask, Claim, Claimer, Extended, HandOn, HandedOn, Held, Next, Outcome, Progress, Replay, Revocation, Status,
            TaskState, Verdict,
        },
        names::{ClientId, TaskId},
        unique::{self, Reserved, Taken, UniqueKey},
    },
};

/// A store under test, with a way to its insides.
#[async_trait]
pub(super) trait Subject: Store {
    /// Makes a task's record anything, or nothing.
    async fn plant(&self, id: &TaskId, state: Option<TaskState>);

    /// Ms until a task's record is forgotten.
    async fn ttl_ms(&self, id: &TaskId) -> u64;

    /// Puts something at the key of a task that is none. `false`: this store has no keys.
    async fn spoil(&self, id: &TaskId) -> bool;
}

macro_rules! conformance_tests {
    ($backend:ident, $store:expr) => {
        conformance_tests!($backend, $store;
            claim_table claim_twice claim_keeps_the_order_of_a_batch quarantine_counts_over_a_batch
            tokens_grow submit_changes_nothing_that_is_there
            complete_needs_the_token complete_twice complete_of_a_lost_record complete_drops_what_is_transient
            extend_needs_the_token extend_makes_a_lost_record_again
            release_lets_others_claim release_of_a_revoked_run
            a_hand_on_makes_way_for_the_next_record a_lost_record_can_be_handed_on_while_its_lease_is_fresh
            a_hand_on_in_place_keeps_the_record a_lost_record_can_be_kept_in_place
            revoke_of_what_waits_in_place
            revoke_of_what_waits revoke_of_what_waits_for_its_time an_end_is_remembered_as_long_as_another_record_waits revoke_of_a_run revoke_of_what_nobody_has_seen
            a_replay_starts_over_under_the_next_seq a_replay_of_what_goes_on_or_has_not_failed_changes_nothing
            a_replay_lifts_a_revocation_and_needs_no_memory
            ttls_follow_the_transitions a_spoiled_key_fails_alone a_thousand_at_once ids_and_results_are_bytes
            replies_reach_who_asked replies_reach_all_that_wait a_reply_comes_once few_can_wait_for_one_task
            progress_follows_the_token progress_reaches_who_watches progress_ends_with_the_run
            a_key_is_whose_it_was_first every_history_of_a_key keys_are_told_apart a_key_is_free_again_in_time
            a_worker_is_registered_until_it_leaves a_lost_worker_is_told_once
            the_latest_acknowledged_tick_only_grows periodic_tasks_are_listed_by_name
            declarations_are_as_the_pure_function_says
            admissions_are_as_the_pure_function_says limits_are_told_apart
            places_are_as_the_pure_function_says what_is_vacated_is_free
        );
    };
    ($backend:ident, $store:expr; $($test:ident)*) => {
        mod $backend {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                super::$test(&*$store).await;
            })*
        }
    };
}

conformance_tests!(memory, MemoryStore::new(SystemClock::shared()));
conformance_tests!(redis, redis_for_test().await);
conformance_tests!(cluster, cluster_for_test().await);

const LEASE_MS: u64 = 60_000;

fn ask(seq: u64, nonce: u64) -> Arc<Ask> {
    Arc::new(Ask { seq, attempt: 1, nonce, task: "add".into(), queue: "default".into() })
}

fn worker(name: &str) -> Claimer {
    Claimer { worker: name.into(), lease_ms: LEASE_MS, take_over: true, quarantine: 9, max_deliveries: 5 }
}

fn lease(id: &TaskId, ask: &Arc<Ask>, token: u64, recent: bool) -> Lease {
    Lease { id: id.clone(), ask: Arc::clone(ask), held: Held { token, recent } }
}

fn success(lease: Lease, result: &str) -> Completion {
    let result = Some(result.into());
    let outcome = Arc::new(Outcome { status: Status::Success, result, error: None, hand_on: None });
    Completion { lease, outcome, reply_to: None, ttl_ms: ttl::RESULT }
}

fn only<T>(answers: Result<Vec<Result<T, StoreError>>, StoreError>) -> T {
    let mut answers = answers.unwrap();
    assert_eq!(answers.len(), 1);
    answers.pop().unwrap().unwrap()
}

async fn claim(store: &dyn Subject, by: &Claimer, id: &TaskId, ask: &Arc<Ask>) -> Claim {
    only(store.claim(by, &[(id.clone(), Arc::clone(ask))]).await)
}

async fn granted(store: &dyn Subject, id: &TaskId, ask: &Arc<Ask>) -> u64 {
    match claim(store, &worker("w1"), id, ask).await {
        Claim::Granted { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

async fn read(store: &dyn Subject, id: &TaskId) -> Option<TaskState> {
    only(store.read(std::slice::from_ref(id), None).await)
}

/// A task that runs at `w1` under token 7 and nonce 1.
async fn running(store: &dyn Subject, lease_left_ms: i64) -> TaskState {
    let now_us = store.now_us().await.unwrap();
    TaskState {
        status: Status::Running,
        token: 7,
        worker: Some("w1".into()),
        nonce: 1,
        lease_until: (now_us / 1_000).saturating_add_signed(lease_left_ms),
        ..TaskState::queued("add".into(), "default".into(), now_us)
    }
}

/// Each row of the table: what is there, who asks, what it is told. Sent again, it is told the same.
async fn claim_table(store: &dyn Subject) {
    let live = running(store, 30_000).await;
    let over = running(store, -1).await;
    let ended = |status| TaskState { status, worker: None, nonce: 0, lease_until: 0, ..live.clone() };
    let waiting = |status| TaskState { status, ..ended(Status::Queued) };
    let next = HandOn::Next { attempt: 2, due: 0 };
    let error = Some(Arc::from(r#"{"kind":"error"}"#));
    let dead = TaskState { hand_on: Some(HandOn::Dead), error, deliveries: 1, ..ended(Status::Failure) };
    let no_error = TaskState { error: None, ..dead.clone() };
    let told_dead = |error: &str, deliveries| Claim::Dead { error: error.into(), deliveries };
    let crashed = r#"{"kind":"deliveries","message":"6 workers died while they ran it","attempt":1}"#;
    let timid = Claimer { take_over: false, ..worker("w2") };
    let full = Claimer { quarantine: 0, ..worker("w2") };
    let (w1, w2) = (worker("w1"), worker("w2"));
    let grant_as = |deliveries, attempt| Claim::Granted { token: 0, deliveries, attempt };
    let grant = |deliveries| grant_as(deliveries, 1);
    let held = |mine| Claim::Held { ms_left: 0, mine };
    let again = |attempt| Claim::Granted { token: 7, deliveries: 0, attempt };
    let staying = TaskState { hand_on: Some(HandOn::Stay), eta: Some(1), ..waiting(Status::Retrying) };
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
            "handed on to the next seq",
            Some(TaskState { seq: 2, hand_on: Some(next), ..waiting(Status::Retrying) }),
            &w2,
            ask(1, 2),
            Claim::Moved { attempt: 2, due: 0, error: None },
        ),
        (
            "handed on, further",
            Some(TaskState { seq: 3, hand_on: Some(next), ..waiting(Status::Retrying) }),
            &w2,
            ask(1, 2),
            Claim::Done,
        ),
        ("higher seq", Some(TaskState { seq: 2, ..live.clone() }), &w2, ask(1, 2), Claim::Done),
        ("success", Some(ended(Status::Success)), &w2, ask(1, 2), Claim::Done),
        ("success, later seq asks", Some(ended(Status::Success)), &w2, ask(2, 2), Claim::Done),
        ("failure", Some(ended(Status::Failure)), &w2, ask(1, 2), Claim::Done),
        ("revoked", Some(ended(Status::Revoked)), &w2, ask(1, 2), Claim::Revoked),
        ("dead", Some(dead), &w2, ask(1, 2), told_dead(r#"{"kind":"error"}"#, 1)),
        ("dead, no error kept", Some(no_error), &w2, ask(1, 2), told_dead("null", 1)),
        (
            "handed on in place, not due",
            Some(TaskState { attempt: 2, eta: soon, ..staying.clone() }),
            &w2,
            ask(1, 2),
            held(false),
        ),
        ("handed on in place, due", Some(TaskState { attempt: 2, ..staying.clone() }), &w2, ask(1, 2), grant_as(0, 2)),
        (
            "handed on in place, later seq asks",
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
            "released in its third attempt",
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
        ("lease over, too often", Some(TaskState { deliveries: 5, ..over }), &w2, ask(1, 2), told_dead(crashed, 6)),
    ];
    for (row, planted, by, ask, expected) in rows {
        let id = TaskId::new();
        store.plant(&id, planted.clone()).await;
        for call in ["first", "second"] {
            let told = claim(store, by, &id, &ask).await;
            assert!(same_claim(&told, &expected), "{row}, {call} call: {told:?}");
        }
        let (before, after) = (planted.map_or(0, |state| state.token), read(store, &id).await.unwrap());
        let ends_here = matches!(row, "lease over, revoked" | "lease over, too often");
        if ends_here || matches!(expected, Claim::Granted { token: 0, .. }) {
            assert!(after.token > before, "{row}: the token of the run that was cut off still counts");
        }
        assert_eq!(after.status.is_terminal(), !matches!(after.status, Status::Running | Status::Retrying), "{row}");
    }
}

/// Whether a claim was told what the row says; 0 stands for any token or time.
fn same_claim(told: &Claim, row: &Claim) -> bool {
    match (told, row) {
        (
            Claim::Granted { token, deliveries: a, attempt: x },
            Claim::Granted { token: 0, deliveries: b, attempt: y },
        ) => *token > 7 && a == b && x == y,
        (Claim::Held { ms_left, mine: a }, Claim::Held { mine: b, .. }) => (1..=LEASE_MS).contains(ms_left) && a == b,
        (told, row) => told == row,
    }
}

async fn claim_twice(store: &dyn Subject) {
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

async fn claim_keeps_the_order_of_a_batch(store: &dyn Subject) {
    let id = TaskId::new();
    let told = store.claim(&worker("w1"), &[(id.clone(), ask(1, 1)), (id.clone(), ask(1, 2))]).await.unwrap();
    assert!(matches!(told[0], Ok(Claim::Granted { .. })), "{told:?}");
    assert!(matches!(told[1], Ok(Claim::Held { mine: true, .. })), "{told:?}");
}

async fn quarantine_counts_over_a_batch(store: &dyn Subject) {
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
        let told = store.claim(&by, &asks).await.unwrap();
        let is_granted = |at: &usize| matches!(told[*at], Ok(Claim::Granted { .. }));
        let slots = usize::try_from(slots).unwrap();
        assert_eq!((0..batch).filter(is_granted).count(), batch - 4 + slots);
        assert_eq!(suspects.iter().filter(|at| is_granted(at)).count(), slots);
    }
}

async fn tokens_grow(store: &dyn Subject) {
    let id = TaskId::new();
    let first = granted(store, &id, &ask(1, 1)).await;
    let now_us = store.now_us().await.unwrap();
    assert!(first.abs_diff(now_us) < 60_000_000, "{first} is not near {now_us}");
    store.release(&[lease(&id, &ask(1, 1), first, true)]).await.unwrap();
    assert!(granted(store, &id, &ask(1, 2)).await > first);

    // The largest token that any clock has told so far wins over this store's own clock.
    let ahead = 4_000_000_000_000_007;
    store.plant(&id, Some(TaskState { token: ahead, ..running(store, -1).await })).await;
    assert_eq!(granted(store, &id, &ask(1, 3)).await, ahead + 1);
    assert_eq!(read(store, &id).await.unwrap().token, ahead + 1);
}

async fn submit_changes_nothing_that_is_there(store: &dyn Subject) {
    let (fresh, claimed) = (TaskId::new(), TaskId::new());
    granted(store, &claimed, &ask(1, 1)).await;
    let before = read(store, &claimed).await;
    let submission =
        |id: &TaskId| Submission { id: id.clone(), task: "mail".into(), queue: "q".into(), reply_to: None, eta: None };
    let tasks = [submission(&fresh), submission(&claimed)];
    store.submit(&tasks).await.unwrap();
    let queued = read(store, &fresh).await.unwrap();
    let now_us = queued.queued_at.unwrap() * 1_000;
    assert_eq!(queued, TaskState::queued("mail".into(), "q".into(), now_us));
    store.submit(&tasks).await.unwrap();
    assert_eq!(read(store, &fresh).await, Some(queued));
    assert_eq!(read(store, &claimed).await, before);
}

async fn complete_needs_the_token(store: &dyn Subject) {
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

async fn complete_twice(store: &dyn Subject) {
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

async fn complete_of_a_lost_record(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(2, 1));
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, 9, false), "3")]).await), Verdict::Stale);
    assert_eq!(read(store, &id).await, None);
    assert_eq!(only(store.complete(&[success(lease(&id, &ask, 9, true), "3")]).await), Verdict::Recorded);
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.seq, state.token, &*state.task), (Status::Success, 2, 9, "add"));
}

async fn complete_drops_what_is_transient(store: &dyn Subject) {
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

async fn extend_needs_the_token(store: &dyn Subject) {
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

async fn extend_makes_a_lost_record_again(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(3, 4));
    let extend = async |recent| only(store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &asked, 9, recent)]).await);
    assert_eq!(extend(false).await, Extended::Lost);
    assert_eq!(read(store, &id).await, None);
    assert_eq!(extend(true).await, Extended::Live);
    assert_eq!(extend(true).await, Extended::Live);
    assert_eq!(claim(store, &worker("w1"), &id, &asked).await, Claim::Granted { token: 9, deliveries: 0, attempt: 1 });
    assert!(matches!(claim(store, &worker("w2"), &id, &ask(3, 4)).await, Claim::Held { mine: false, .. }));
}

async fn release_lets_others_claim(store: &dyn Subject) {
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

async fn release_of_a_revoked_run(store: &dyn Subject) {
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

async fn revoke(store: &dyn Subject, id: &TaskId) -> Revocation {
    only(store.revoke(std::slice::from_ref(id)).await)
}

async fn revoke_of_what_waits(store: &dyn Subject) {
    let mut replies = open(store, "sender").await;
    let id = TaskId::new();
    let reply_to = Some("sender".into());
    let task = Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to, eta: None };
    store.submit(&[task]).await.unwrap();
    assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: None });
    assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: None }, "sent twice");
    assert_eq!(claim(store, &worker("w1"), &id, &ask(1, 1)).await, Claim::Revoked);
    let state = read(store, &id).await.unwrap();
    let error = state.error.clone();
    assert!(error.as_deref().is_some_and(|error| error.contains(r#""kind":"revoked""#)), "{state:?}");
    let told = Reply { id: id.clone(), status: Status::Revoked, result: None, error };
    assert_eq!(next(&mut replies).await, Notice::Replies(vec![told]), "who sent it hears at once");
    assert!(store.ttl_ms(&id).await > 6 * 24 * 3_600_000, "the marker outlives a record that waits for long");
}

async fn a_hand_on_makes_way_for_the_next_record(store: &dyn Subject) {
    let (id, first) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &first).await;
    let due = store.now_us().await.unwrap() / 1_000 + 3_600_000;
    let error: Option<Arc<str>> = Some(r#"{"kind":"error","message":"x","attempt":1}"#.into());
    let next = Arc::new(Next { status: Status::Retrying, attempt: 2, due, error: error.clone(), in_place: false });
    let held = || Handover { lease: lease(&id, &first, token, true), next: Arc::clone(&next) };
    let stale = Handover { lease: lease(&id, &first, token - 1, true), next: Arc::clone(&next) };
    assert_eq!(only(store.hand_on(std::slice::from_ref(&stale)).await), HandedOn::Stale);
    for sent in ["once", "twice"] {
        assert_eq!(only(store.hand_on(&[held()]).await), HandedOn::Recorded, "{sent}");
        let state = read(store, &id).await.unwrap();
        assert_eq!((state.status, state.seq, state.attempt), (Status::Retrying, 2, 2));
        assert_eq!((state.eta, &state.error, state.worker), (Some(due), &error, None));
    }
    let ttl_ms = store.ttl_ms(&id).await;
    assert!(ttl_ms > ttl::WAITING + 3_590_000, "{ttl_ms}: seven days beyond its time");
    // The old record publishes the next one again, and only the next one runs.
    let moved = Claim::Moved { attempt: 2, due, error };
    assert_eq!(claim(store, &worker("w2"), &id, &first).await, moved);
    let verdict = store.complete(&[success(lease(&id, &first, token, true), "3")]).await;
    assert_eq!(only(verdict), Verdict::Stale, "the run had given the task up");
    let second = Arc::new(Ask { seq: 2, attempt: 2, nonce: 9, task: "add".into(), queue: "default".into() });
    let token = granted(store, &id, &second).await;
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.error, state.eta, state.hand_on), (Status::Running, None, Some(due), None));
    assert_eq!(only(store.hand_on(&[held()]).await), HandedOn::Stale, "by now another run has it");
    assert_eq!(claim(store, &worker("w2"), &id, &first).await, Claim::Done);
    // A run that was asked to end does not go on.
    assert_eq!(revoke(store, &id).await, Revocation::Asked("w1".into()));
    let run = Handover { lease: lease(&id, &second, token, true), next };
    assert_eq!(only(store.hand_on(&[run]).await), HandedOn::Revoking);
    assert_eq!(read(store, &id).await.unwrap().status, Status::Running, "nothing changed");
}

async fn a_lost_record_can_be_handed_on_while_its_lease_is_fresh(store: &dyn Subject) {
    let asked = ask(3, 1);
    let next = Arc::new(Next { status: Status::Scheduled, attempt: 1, due: 0, error: None, in_place: false });
    for (recent, told) in [(true, HandedOn::Recorded), (false, HandedOn::Stale)] {
        let id = TaskId::new();
        let run = Handover { lease: lease(&id, &asked, 7, recent), next: Arc::clone(&next) };
        assert_eq!(only(store.hand_on(&[run]).await), told);
        assert_eq!(
            read(store, &id).await.map(|state| (state.status, state.seq)),
            recent.then_some((Status::Scheduled, 4))
        );
    }
}

async fn revoke_of_what_waits_for_its_time(store: &dyn Subject) {
    let id = TaskId::new();
    let eta = store.now_us().await.unwrap() / 1_000 + 30 * 24 * 3_600_000;
    let task =
        Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to: None, eta: Some(eta) };
    store.submit(&[task]).await.unwrap();
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.eta), (Status::Scheduled, Some(eta)));
    for sent in ["once", "twice"] {
        assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: Some(1) }, "{sent}");
        let ttl_ms = store.ttl_ms(&id).await;
        assert!(ttl_ms > ttl::WAITING + 29 * 24 * 3_600_000, "{ttl_ms}: the marker outlives the wait");
    }
    assert_eq!(claim(store, &worker("w1"), &id, &ask(1, 1)).await, Claim::Revoked);
}

async fn an_end_is_remembered_as_long_as_another_record_waits(store: &dyn Subject) {
    let id = TaskId::new();
    let eta = store.now_us().await.unwrap() / 1_000 + 30 * 24 * 3_600_000;
    let task =
        Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to: None, eta: Some(eta) };
    store.submit(&[task]).await.unwrap();
    // Sent again under its id, without a delay.
    let now = ask(1, 1);
    let token = granted(store, &id, &now).await;
    assert_eq!(only(store.complete(&[success(lease(&id, &now, token, true), "3")]).await), Verdict::Recorded);
    let ttl_ms = store.ttl_ms(&id).await;
    assert!(ttl_ms > ttl::RESULT + 29 * 24 * 3_600_000, "{ttl_ms}: beyond the time of the other record");
    assert_eq!(claim(store, &worker("w2"), &id, &ask(1, 2)).await, Claim::Done);
}

async fn revoke_of_a_run(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let mut orders = store.control(&"w1".into()).await.unwrap();
    assert_eq!(next(&mut orders).await, Notice::Missed);
    let token = granted(store, &id, &asked).await;
    for _ in 0..2 {
        assert_eq!(revoke(store, &id).await, Revocation::Asked("w1".into()));
        assert_eq!(next(&mut orders).await, Notice::Revoke(vec![id.clone()]));
    }
    let held = [lease(&id, &asked, token, true)];
    let extended = store.extend(&"w1".into(), 6_000, &held).await;
    assert_eq!(only(extended), Extended::Revoking);
    let [held] = held;
    let verdict = store.complete(&[success(held, "3")]).await;
    assert_eq!(only(verdict), Verdict::Recorded, "a success stays one");
    assert_eq!(revoke(store, &id).await, Revocation::Ended(Status::Success));
    assert_eq!(read(store, &id).await.unwrap().status, Status::Success);
}

async fn revoke_of_what_nobody_has_seen(store: &dyn Subject) {
    let id = TaskId::new();
    for sent in ["once", "twice"] {
        assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: Some(1) }, "{sent}: it may be delayed");
    }
    let task = Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to: None, eta: None };
    store.submit(&[task]).await.unwrap();
    assert_eq!(claim(store, &worker("w1"), &id, &ask(1, 1)).await, Claim::Revoked);
}

async fn replay(store: &dyn Subject, id: &TaskId, seq: u64) -> Replay {
    let revival = Revival { id: id.clone(), seq, task: "add".into(), queue: "default".into() };
    only(store.replay(&[revival]).await)
}

/// A task that failed for good under `seq` 3.
async fn dead(store: &dyn Subject, id: &TaskId) -> TaskState {
    let error = Some(r#"{"kind":"error"}"#.into());
    let task = TaskState { seq: 3, attempt: 4, deliveries: 2, error, ..running(store, 0).await };
    let task = TaskState { worker: None, nonce: 0, lease_until: 0, finished_at: task.queued_at, ..task };
    let task = TaskState { status: Status::Failure, hand_on: Some(HandOn::Dead), ..task };
    store.plant(id, Some(task.clone())).await;
    task
}

async fn a_replay_starts_over_under_the_next_seq(store: &dyn Subject) {
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
    let hand_on = Some(HandOn::Next { attempt: 1, due: 0 });
    assert_eq!(state, TaskState { seq: 4, hand_on, token, queued_at, ..blank });
    assert!(token > before.token);
    assert!(store.ttl_ms(&id).await > ttl::WAITING - 10_000);
    // The record that died is read again: its worker publishes the next one in the operator's place.
    let moved = Claim::Moved { attempt: 1, due: 0, error: None };
    assert_eq!(claim(store, &worker("w1"), &id, &ask(3, 5)).await, moved);
    assert_eq!(claim(store, &worker("w1"), &id, &ask(2, 6)).await, Claim::Done);
    // A run that the replay cut off.
    let late = store.complete(&[success(lease(&id, &ask(3, 1), before.token, true), "3")]).await;
    assert_eq!(only(late), Verdict::Stale);
    let token = granted(store, &id, &ask(4, 7)).await;
    let state = read(store, &id).await.unwrap();
    assert_eq!((state.status, state.attempt, state.deliveries, state.hand_on), (Status::Running, 1, 0, None));
    let verdict = store.complete(&[success(lease(&id, &ask(4, 7), token, true), "3")]).await;
    assert_eq!(only(verdict), Verdict::Recorded);
    assert_eq!(replay(store, &id, 3).await, Replay::Past(Status::Success));
}

async fn a_replay_of_what_goes_on_or_has_not_failed_changes_nothing(store: &dyn Subject) {
    let live = running(store, 30_000).await;
    let queued = TaskState { status: Status::Queued, worker: None, nonce: 0, lease_until: 0, ..live.clone() };
    let next = Some(HandOn::Next { attempt: 2, due: 0 });
    for (before, answer) in [
        (live.clone(), Replay::Refused(Status::Running)),
        (queued.clone(), Replay::Refused(Status::Queued)),
        (TaskState { status: Status::Success, ..queued.clone() }, Replay::Refused(Status::Success)),
        (TaskState { seq: 2, ..queued.clone() }, Replay::Past(Status::Queued)),
        (TaskState { seq: 2, ..live }, Replay::Past(Status::Running)),
        (
            TaskState { seq: 2, hand_on: next, status: Status::Retrying, ..queued.clone() },
            Replay::Past(Status::Retrying),
        ),
        (TaskState { seq: 3, hand_on: next, ..queued.clone() }, Replay::Past(Status::Queued)),
        // Another letter of it tells how it failed there.
        (
            TaskState { seq: 2, hand_on: Some(HandOn::Dead), status: Status::Failure, ..queued },
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

async fn a_replay_lifts_a_revocation_and_needs_no_memory(store: &dyn Subject) {
    for is_revoked in [false, true] {
        let id = TaskId::new();
        if is_revoked {
            assert_eq!(revoke(store, &id).await, Revocation::Revoked { delayed: Some(1) });
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

async fn ttls_follow_the_transitions(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let about = async |ttl_ms: u64| {
        let left = store.ttl_ms(&id).await;
        assert!((ttl_ms - 10_000..=ttl_ms).contains(&left), "{left} of {ttl_ms}");
    };
    store
        .submit(&[Submission {
            id: id.clone(),
            task: "add".into(),
            queue: "default".into(),
            reply_to: None,
            eta: None,
        }])
        .await
        .unwrap();
    about(ttl::WAITING).await;
    let token = granted(store, &id, &asked).await;
    about(ttl::WAITING).await;
    store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &asked, token, true)]).await.unwrap();
    about(ttl::WAITING).await;
    let marker = Completion { ttl_ms: ttl::MARKER, ..success(lease(&id, &asked, token, true), "3") };
    store.complete(&[marker]).await.unwrap();
    about(ttl::MARKER).await;

    store.plant(&id, None).await;
    granted(store, &id, &asked).await;
    about(ttl::WAITING).await;
    store.plant(&id, Some(TaskState { deliveries: 5, ..running(store, -1).await })).await;
    claim(store, &worker("w1"), &id, &ask(1, 2)).await;
    about(ttl::RESULT).await;
    store.plant(&id, None).await;
    store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &asked, token, true)]).await.unwrap();
    about(ttl::WAITING).await;
    store.release(&[lease(&id, &asked, token, true)]).await.unwrap();
    about(ttl::WAITING).await;
}

async fn a_spoiled_key_fails_alone(store: &dyn Subject) {
    let ids = [TaskId::new(), TaskId::new(), TaskId::new()];
    if !store.spoil(&ids[1]).await {
        return;
    }
    fn check<T: std::fmt::Debug>(answers: Result<Vec<Result<T, StoreError>>, StoreError>) -> [T; 2] {
        let [Ok(first), Err(StoreError::WrongType { key, .. }), Ok(last)] =
            <[_; 3]>::try_from(answers.unwrap()).unwrap()
        else {
            panic!("only the second is spoiled")
        };
        assert!(key.contains(":task:{"), "{key}");
        [first, last]
    }
    let asked = ask(1, 1);
    let asks = ids.clone().map(|id| (id, Arc::clone(&asked)));
    let tokens = check(store.claim(&worker("w1"), &asks).await).map(|claim| match claim {
        Claim::Granted { token, .. } => token,
        other => panic!("{other:?}"),
    });
    let leases = [tokens[0], 1, tokens[1]].into_iter().zip(&ids).map(|(token, id)| lease(id, &asked, token, true));
    let leases = leases.collect::<Vec<_>>();
    let reports = leases.iter().map(|lease| report(&lease.id, lease.held.token, 1, "1")).collect::<Vec<_>>();
    assert_eq!(check(store.progress(&reports).await), [true; 2]);
    assert_eq!(check(store.extend(&"w1".into(), LEASE_MS, &leases).await), [Extended::Live; 2]);
    let runs = leases.iter().map(|lease| success(lease.clone(), "3")).collect::<Vec<_>>();
    assert_eq!(check(store.complete(&runs).await), [Verdict::Recorded; 2]);
    assert_eq!(check(store.release(&leases).await), [Verdict::Stale; 2]);
    let client: ClientId = "c".into();
    assert!(check(store.read(&ids, Some(&client)).await).iter().all(Option::is_some));
    assert!(check(store.watch(&ids, &client).await).iter().all(Option::is_some));
    let submissions = ids.map(|id| Submission { id, task: "add".into(), queue: "q".into(), reply_to: None, eta: None });
    assert!(matches!(store.submit(&submissions).await, Err(StoreError::WrongType { .. })));
}

async fn a_thousand_at_once(store: &dyn Subject) {
    let ids = (0..1_000).map(|_| TaskId::new()).collect::<Vec<_>>();
    let submission = |id: &TaskId| Submission {
        id: id.clone(),
        task: "add".into(),
        queue: "default".into(),
        reply_to: None,
        eta: None,
    };
    store.submit(&ids.iter().map(submission).collect::<Vec<_>>()).await.unwrap();
    let asked = ask(1, 1);
    let asks = ids.iter().map(|id| (id.clone(), Arc::clone(&asked))).collect::<Vec<_>>();
    let claims = store.claim(&worker("w1"), &asks).await.unwrap();
    let run = |(at, claim): (usize, Result<Claim, StoreError>)| match claim.unwrap() {
        Claim::Granted { token, .. } => success(lease(&ids[at], &asked, token, true), &at.to_string()),
        other => panic!("{other:?}"),
    };
    let runs = claims.into_iter().enumerate().map(run).collect::<Vec<_>>();
    let verdicts = store.complete(&runs).await.unwrap();
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Ok(Verdict::Recorded))));
    for (at, state) in store.read(&ids, None).await.unwrap().into_iter().enumerate() {
        assert_eq!(state.unwrap().unwrap().result.as_deref(), Some(&*at.to_string()));
    }
    assert!(store.claim(&worker("w1"), &[]).await.unwrap().is_empty());
}

/// Lengths, separators and braces in names change nothing.
async fn ids_and_results_are_bytes(store: &dyn Subject) {
    let mut replies = open(store, "bytes").await;
    for id in ["}", "{a}b{c}", "a b\n\0:ä", &"x".repeat(128)] {
        let id = id.parse::<TaskId>().unwrap();
        let asked = Arc::new(Ask { task: "my task\n\0 ä".into(), ..(*ask(1, u64::MAX)).clone() });
        let token = granted(store, &id, &asked).await;
        store.plant(&id, None).await;
        let result = "\"\\n ä 3:x,\"\n\r\n ";
        let run = Completion { reply_to: Some("bytes".into()), ..success(lease(&id, &asked, token, true), result) };
        assert_eq!(only(store.complete(&[run]).await), Verdict::Recorded);
        let state = read(store, &id).await.unwrap();
        assert_eq!((&*state.task, state.result.as_deref()), ("my task\n\0 ä", Some(result)));
        let reply = Reply { id, status: Status::Success, result: Some(result.into()), error: None };
        assert_eq!(next(&mut replies).await, Notice::Replies(vec![reply]));
    }
}

/// Opens a reply channel and waits until it is there.
async fn open(store: &dyn Subject, client: &str) -> Box<dyn Replies> {
    let mut replies = store.replies(&client.into()).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    replies
}

async fn next(replies: &mut Box<dyn Replies>) -> Notice {
    timeout(Duration::from_secs(10), replies.next()).await.expect("told within 10 s")
}

/// As many replies as that, in whatever batches they come.
async fn next_replies(replies: &mut Box<dyn Replies>, count: usize) -> Vec<Reply> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(replies).await {
            Notice::Replies(batch) => all.extend(batch),
            other => panic!("{other:?} after {all:?}"),
        }
    }
    all
}

async fn replies_reach_who_asked(store: &dyn Subject) {
    let (mut mine, mut other) = (open(store, "mine").await, open(store, "other").await);
    let asked = ask(1, 1);
    let mut runs = Vec::new();
    for (result, to) in [("1", "mine"), ("2", "other"), ("3", "mine"), ("4", "nobody")] {
        let id = TaskId::new();
        let token = granted(store, &id, &asked).await;
        runs.push(Completion { reply_to: Some(to.into()), ..success(lease(&id, &asked, token, true), result) });
    }
    store.complete(&runs).await.unwrap();
    let reply = |at: usize| Reply {
        id: runs[at].lease.id.clone(),
        status: Status::Success,
        result: runs[at].outcome.result.clone(),
        error: None,
    };
    assert_eq!(next_replies(&mut mine, 2).await, [reply(0), reply(2)]);
    assert_eq!(next_replies(&mut other, 1).await, [reply(1)]);
}

async fn replies_reach_all_that_wait(store: &dyn Subject) {
    let (mut first, mut second) = (open(store, "first").await, open(store, "second").await);
    let (id, asked) = (TaskId::new(), ask(1, 1));
    store
        .submit(&[Submission {
            id: id.clone(),
            task: "add".into(),
            queue: "default".into(),
            reply_to: None,
            eta: None,
        }])
        .await
        .unwrap();
    for client in ["first", "second", "second"] {
        only(store.read(std::slice::from_ref(&id), Some(&client.into())).await).unwrap();
    }
    let token = granted(store, &id, &asked).await;
    let error = Some(Arc::from("{}"));
    let outcome = Arc::new(Outcome { status: Status::Failure, result: None, error: error.clone(), hand_on: None });
    let reply_to = Some("first".into());
    let run = Completion { outcome, reply_to, ..success(lease(&id, &asked, token, true), "") };
    store.complete(&[run]).await.unwrap();
    let expected = Notice::Replies(vec![Reply { id, status: Status::Failure, result: None, error }]);
    assert_eq!(next(&mut first).await, expected);
    assert_eq!(next(&mut second).await, expected);
}

async fn a_reply_comes_once(store: &dyn Subject) {
    let mut replies = open(store, "once").await;
    let (ids, asked) = ([TaskId::new(), TaskId::new()], ask(1, 1));
    let mut tokens = Vec::new();
    for id in &ids {
        tokens.push(granted(store, id, &asked).await);
    }
    let run = |at: usize, token| Completion {
        reply_to: Some("once".into()),
        ..success(lease(&ids[at], &asked, token, true), "3")
    };
    // Stale, recorded, recorded again: only the second is news. The last one shows that nothing came between.
    for run in [run(0, 1), run(0, tokens[0]), run(0, tokens[0]), run(1, tokens[1])] {
        store.complete(&[run]).await.unwrap();
    }
    for id in ids {
        let reply = Reply { id, status: Status::Success, result: Some("3".into()), error: None };
        assert_eq!(next(&mut replies).await, Notice::Replies(vec![reply]));
    }
}

async fn few_can_wait_for_one_task(store: &dyn Subject) {
    let mut late = open(store, "late").await;
    let (ids, asked) = ([TaskId::new(), TaskId::new()], ask(1, 1));
    let tokens = [granted(store, &ids[0], &asked).await, granted(store, &ids[1], &asked).await];
    for client in (0..MAX_WAITERS).map(|client| format!("c{client}").into()).chain(["late".into()]) {
        only(store.read(&ids[..1], Some(&client)).await).unwrap();
    }
    for (at, reply_to) in [None, Some("late".into())].into_iter().enumerate() {
        let run = success(lease(&ids[at], &asked, tokens[at], true), "3");
        store.complete(&[Completion { reply_to, ..run }]).await.unwrap();
    }
    assert_eq!(next_replies(&mut late, 1).await[0].id, ids[1]);
}

fn report(id: &TaskId, token: u64, number: u64, value: &str) -> Report {
    Report { id: id.clone(), token, progress: Progress { number, value: value.into() } }
}

async fn progress(store: &dyn Subject, report: &Report) -> bool {
    only(store.progress(std::slice::from_ref(report)).await)
}

async fn progress_follows_the_token(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    assert!(!progress(store, &report(&id, 7, 1, "1")).await);
    assert_eq!(read(store, &id).await, None, "a hint makes no record");
    let token = granted(store, &id, &ask).await;
    let value = async || read(store, &id).await.unwrap().progress.map(|progress| progress.value.to_string());
    assert!(!progress(store, &report(&id, token - 1, 9, "9")).await);
    assert_eq!(value().await, None);
    let first = report(&id, token, 4, r#"{"percent":"ä\n"}"#);
    assert!(progress(store, &first).await && progress(store, &first).await, "sent twice");
    assert_eq!(value().await.as_deref(), Some(r#"{"percent":"ä\n"}"#));
    assert!(progress(store, &report(&id, token, 12, "12")).await);
    assert!(progress(store, &report(&id, token, 5, "5")).await);
    assert_eq!(value().await.as_deref(), Some("12"), "numbers are compared, not texts");
}

/// As many reports as that, in whatever batches they come.
async fn next_reports(replies: &mut Box<dyn Replies>, count: usize) -> Vec<Report> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(replies).await {
            Notice::Progress(batch) => all.extend(batch),
            other => panic!("{other:?} after {all:?}"),
        }
    }
    all
}

async fn progress_reaches_who_watches(store: &dyn Subject) {
    let (mut watcher, mut waiter) = (open(store, "watcher").await, open(store, "waiter").await);
    let (ids, asked) = ([TaskId::new(), TaskId::new()], ask(1, 1));
    let tokens = [granted(store, &ids[0], &asked).await, granted(store, &ids[1], &asked).await];
    let unwatched = report(&ids[0], tokens[0], 1, "1");
    assert!(progress(store, &unwatched).await);
    for _ in 0..2 {
        let read = store.watch(&ids, &"watcher".into()).await.unwrap();
        assert_eq!(read[0].as_ref().unwrap().as_ref().unwrap().progress, Some(unwatched.progress.clone()));
    }
    only(store.read(&ids[..1], Some(&"waiter".into())).await);
    let reports = [report(&ids[0], tokens[0], 2, "2"), report(&ids[1], tokens[1], 3, "\"three\"")];
    for _ in 0..2 {
        // Sent twice, and once by a run that is no more.
        let stale = report(&ids[1], tokens[1] - 1, 9, "9");
        let answers = store.progress(&[reports[0].clone(), reports[1].clone(), stale]).await.unwrap();
        assert!(matches!(answers[..], [Ok(true), Ok(true), Ok(false)]), "{answers:?}");
    }
    let mut told = next_reports(&mut watcher, 2).await;
    told.sort_by_key(|report| report.progress.number);
    assert_eq!(told, reports);

    // The next run is heard, too: nobody asked again.
    store.release(&[lease(&ids[0], &asked, tokens[0], true)]).await.unwrap();
    let token = granted(store, &ids[0], &ask(1, 2)).await;
    let later = report(&ids[0], token, 1, "0");
    assert!(progress(store, &later).await);
    assert_eq!(next_reports(&mut watcher, 1).await, [later]);
    // And the end, by both: whoever watches waits, and whoever only waits was told nothing else.
    store.complete(&[success(lease(&ids[0], &asked, token, true), "3")]).await.unwrap();
    assert_eq!(next_replies(&mut watcher, 1).await[0].id, ids[0]);
    assert_eq!(next_replies(&mut waiter, 1).await[0].id, ids[0]);
}

async fn progress_ends_with_the_run(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &asked).await;
    let progress_now = async || read(store, &id).await.unwrap().progress;
    let said = report(&id, token, 1, "50");
    assert!(progress(store, &said).await);
    store.release(&[lease(&id, &asked, token, true)]).await.unwrap();
    assert_eq!(progress_now().await, None);
    assert!(!progress(store, &report(&id, token, 2, "60")).await, "given back, so nobody's");
    // Whoever takes over a crashed run begins anew.
    let crashed = TaskState { progress: Some(said.progress.clone()), ..running(store, -1).await };
    store.plant(&id, Some(crashed)).await;
    let token = granted(store, &id, &ask(1, 2)).await;
    assert_eq!(progress_now().await, None);
    assert!(progress(store, &report(&id, token, 1, "10")).await);
    store.complete(&[success(lease(&id, &asked, token, true), "3")]).await.unwrap();
    assert_eq!(progress_now().await, None);
    assert!(!progress(store, &report(&id, token, 2, "99")).await);
    assert_eq!(progress_now().await, None);
}

fn key(task: &str, key: &str) -> UniqueKey {
    UniqueKey { task: task.into(), key: key.into() }
}

fn reservation(key: UniqueKey, id: &TaskId) -> Reservation {
    Reservation { key, id: id.clone(), ttl_ms: 60_000 }
}

async fn reserve(store: &dyn Subject, key: &UniqueKey, id: &TaskId) -> Reserved {
    only(store.reserve(&[reservation(key.clone(), id)]).await)
}

async fn confirm(store: &dyn Subject, key: &UniqueKey, id: &TaskId) -> bool {
    only(store.confirm(&[(key.clone(), id.clone())]).await)
}

/// A key that no other test uses.
fn fresh_key() -> UniqueKey {
    key("add", TaskId::new().as_str())
}

async fn a_key_is_whose_it_was_first(store: &dyn Subject) {
    let (key, first, second) = (fresh_key(), TaskId::new(), "a b\n}: pending c".parse::<TaskId>().unwrap());
    let taken = |id: &TaskId, queued| Reserved::Taken(Taken { id: id.clone(), queued });
    assert!(!confirm(store, &key, &first).await, "it is nobody's");
    for call in ["first", "sent twice"] {
        assert_eq!(reserve(store, &key, &first).await, Reserved::New, "{call}");
    }
    assert_eq!(reserve(store, &key, &second).await, taken(&first, false));
    assert!(!confirm(store, &key, &second).await);
    assert!(confirm(store, &key, &first).await && confirm(store, &key, &first).await, "sent twice");
    for id in [&first, &second] {
        assert_eq!(reserve(store, &key, id).await, taken(&first, true));
    }
    // In one batch, and with an id that is made of what the store writes around it.
    let other = fresh_key();
    let told = store.reserve(&[reservation(other.clone(), &second), reservation(other.clone(), &first)]).await.unwrap();
    assert_eq!(told.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Reserved::New, taken(&second, false)]);
    assert!(confirm(store, &other, &second).await);
    assert_eq!(reserve(store, &other, &first).await, taken(&second, true));
    assert!(store.reserve(&[]).await.unwrap().is_empty() && store.confirm(&[]).await.unwrap().is_empty());
}

/// All that two callers can do in five steps, on the store and on the pure transitions.
async fn every_history_of_a_key(store: &dyn Subject) {
    const STEPS: u32 = 5;
    let ids = [TaskId::new(), TaskId::new()];
    let mut worlds: Vec<(UniqueKey, Option<Taken>)> = (0..4_usize.pow(STEPS)).map(|_| (fresh_key(), None)).collect();
    for step in 0..STEPS {
        let (mut reserving, mut confirming) = (Vec::new(), Vec::new());
        for (history, (key, pure)) in worlds.iter_mut().enumerate() {
            let action = history / 4_usize.pow(step) % 4;
            let id = &ids[action % 2];
            if action < 2 {
                reserving.push((reservation(key.clone(), id), unique::reserve(pure, id), history));
            } else {
                confirming.push(((key.clone(), id.clone()), unique::confirm(pure, id), history));
            }
        }
        let asked = reserving.iter().map(|(asked, ..)| asked.clone()).collect::<Vec<_>>();
        for (told, (_, expected, history)) in store.reserve(&asked).await.unwrap().into_iter().zip(reserving) {
            assert_eq!(told.unwrap(), expected, "history {history:b}, step {step}");
        }
        let asked = confirming.iter().map(|(asked, ..)| asked.clone()).collect::<Vec<_>>();
        for (told, (_, expected, history)) in store.confirm(&asked).await.unwrap().into_iter().zip(confirming) {
            assert_eq!(told.unwrap(), expected, "history {history:b}, step {step}");
        }
    }
}

/// By the task and by the bytes, whatever separates them in the store.
async fn keys_are_told_apart(store: &dyn Subject) {
    let keys =
        [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("a", "b"), ("a", "B"), ("a", "{b}"), ("a}", "b"), ("a", "b\0 ä")];
    for (task, name) in keys {
        assert_eq!(reserve(store, &key(task, name), &TaskId::new()).await, Reserved::New, "{task} {name}");
    }
}

async fn a_key_is_free_again_in_time(store: &dyn Subject) {
    let (key, first, second) = (fresh_key(), TaskId::new(), TaskId::new());
    let brief = Reservation { ttl_ms: 300, ..reservation(key.clone(), &first) };
    assert_eq!(only(store.reserve(&[brief]).await), Reserved::New);
    let until = store.now_us().await.unwrap() + 300_000;
    // Neither a confirmation nor another caller prolongs it.
    assert!(confirm(store, &key, &first).await);
    assert_ne!(reserve(store, &key, &second).await, Reserved::New);
    while store.now_us().await.unwrap() <= until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!confirm(store, &key, &first).await);
    assert_eq!(reserve(store, &key, &second).await, Reserved::New);
}

fn info(id: &str) -> WorkerInfo {
    WorkerInfo {
        id: id.to_owned(),
        host: "42".to_owned(),
        pid: 7,
        version: "0.1.0".to_owned(),
        queues: vec!["default".to_owned(), "mail".to_owned()],
        slots: 20,
        running: 1,
        running_ids: vec!["a \"b\"".to_owned()],
        processed: 3,
        failed: 1,
        overrun: 2,
        started_at: 1_700_000_000_000,
        seen_at: 0,
    }
}

async fn a_worker_is_registered_until_it_leaves(store: &dyn Subject) {
    for _ in 0..2 {
        assert_eq!(store.beat(&info("w1"), Some(60_000)).await.unwrap(), []);
    }
    assert_eq!(store.beat(&WorkerInfo { processed: 4, ..info("w2") }, Some(60_000)).await.unwrap(), []);
    let now_ms = store.now_us().await.unwrap() / 1_000;
    let mut workers = store.workers().await.unwrap();
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    for worker in &mut workers {
        assert!(now_ms.abs_diff(std::mem::take(&mut worker.seen_at)) < 10_000);
    }
    assert_eq!(workers, [info("w1"), WorkerInfo { processed: 4, ..info("w2") }]);
    for _ in 0..2 {
        store.leave("w1").await.unwrap();
        let left = store.workers().await.unwrap();
        assert_eq!(left.iter().map(|worker| &*worker.id).collect::<Vec<_>>(), ["w2"]);
    }
}

async fn a_lost_worker_is_told_once(store: &dyn Subject) {
    const LOST_AFTER_MS: u64 = 200;
    store.beat(&info("lost"), Some(60_000)).await.unwrap();
    let seen_at = store.workers().await.unwrap()[0].seen_at;
    while store.now_us().await.unwrap() / 1_000 <= seen_at + LOST_AFTER_MS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (a, b) = (info("a"), info("b"));
    let (first, second) = tokio::join!(store.beat(&a, Some(LOST_AFTER_MS)), store.beat(&b, Some(LOST_AFTER_MS)));
    let third = store.beat(&b, Some(LOST_AFTER_MS)).await;
    let mut told = [first, second, third].map(Result::unwrap).concat();
    // On a slow machine they may lose each other.
    told.retain(|worker| worker.id == "lost");
    assert_eq!(told, [WorkerInfo { seen_at, ..info("lost") }]);
    assert!(store.workers().await.unwrap().iter().all(|worker| worker.id != "lost"));
    // It was only slow: its next beat registers it again.
    store.beat(&info("lost"), Some(60_000)).await.unwrap();
    assert!(store.workers().await.unwrap().iter().any(|worker| worker.id == "lost"));
}
