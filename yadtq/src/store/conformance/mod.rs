//! What every store must do, run on each of them.
#![allow(clippy::unwrap_used)]

mod claims;
mod in_place;
mod limits;
mod notices;
mod ownership;
mod periodic;
mod replays;
mod runs;
mod slots;
mod uniques;
mod waits;
mod workers;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;

use self::{
    claims::*, in_place::*, limits::*, notices::*, ownership::*, periodic::*, replays::*, runs::*, slots::*,
    uniques::*, waits::*, workers::*,
};
#[cfg(feature = "redis")]
use super::redis::testing::{cluster_for_test, redis_for_test, restricted_for_test};
use super::{
    Answers, Beaten, DeadTask, Finish, Lease, MAX_WAITERS, Notice, NoticeReceiver, Reply, Report, Reservation, Store,
    StoreError, Submission, WorkerInfo, memory::MemoryStore, ttl,
};
use crate::{
    clock::SystemClock,
    core::{
        lifecycle::{
            Claim, ClaimRequest, Claimer, Delayed, End, Extended, Finished, FollowUp, LeaseProof, Progress, Replay,
            Revocation, Status, TaskState,
        },
        names::{ClientId, TaskId},
        ownership::{OwnRequest, Owned, Owner, Partitions},
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

    /// Keys that have no TTL.
    async fn without_ttl(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it knows which workers subscribe to their control channels.
    fn sees_subscriptions(&self) -> bool {
        true
    }

    /// Puts something at the key of a task that is none. `false`: this store has no keys.
    async fn spoil(&self, id: &TaskId) -> bool;

    /// Forgets who owns a topic's partitions, as an emptied store does.
    async fn forget_owners(&self, topic: &str);

    /// Puts something where the owners of a topic's partitions are kept. `false`: this store has no keys.
    async fn spoil_owners(&self, topic: &str) -> bool;
}

macro_rules! conformance_tests {
    ($backend:ident, $store:expr) => {
        conformance_tests!($backend, $store;
            claim_table claim_twice claim_keeps_the_order_of_a_batch quarantine_counts_over_a_batch
            a_suspect_that_is_granted_again_still_fills_its_slot tokens_grow submit_changes_nothing_that_is_there
            success_needs_the_token success_twice success_of_a_lost_record failure_drops_what_is_transient
            a_dead_letter_is_published_by_one_worker_until_that_is_noted
            extend_needs_the_token extend_makes_a_lost_record_again
            a_task_given_back_can_be_claimed a_revoked_task_given_back_has_ended
            what_goes_on_under_its_record_can_be_carried the_end_of_a_carried_task_is_remembered_for_a_week
            a_retry_makes_way_for_the_next_record a_lost_record_can_be_snoozed_while_its_lease_is_fresh
            a_retry_in_place_keeps_the_record a_lost_record_can_be_snoozed_in_place
            revoke_of_what_waits_in_place
            revoke_of_what_waits revoke_of_what_waits_for_its_time an_end_is_remembered_as_long_as_another_record_waits
            a_revoked_run_that_is_given_back_is_remembered_beyond_its_time revoke_of_a_run revoke_of_what_nobody_has_seen
            a_replay_starts_over_under_the_next_seq a_replay_of_what_goes_on_or_has_not_failed_changes_nothing
            a_replay_lifts_a_revocation_and_needs_no_memory
            ttls_follow_the_transitions a_spoiled_key_fails_alone a_thousand_at_once ids_and_results_are_bytes
            replies_reach_who_asked replies_reach_all_that_wait a_reply_comes_once waiters_are_notified_of_ends_without_a_result few_can_wait_for_one_task
            progress_follows_the_token progress_reaches_who_watches progress_ends_with_the_run
            a_key_is_whose_it_was_first every_history_of_a_key keys_are_kept_apart a_key_is_free_again_in_time
            a_worker_is_registered_until_it_leaves
            a_worker_without_heartbeats_is_lost_after_two_leases_and_reported_once
            who_was_away_for_a_lease_declares_nobody_dead_by_age
            a_worker_whose_subscription_breaks_is_declared_dead_in_a_second a_deaf_worker_that_sends_heartbeats_lives
            the_claims_of_a_dead_worker_are_over
            a_lone_worker_owns_all what_is_given_comes_back_under_a_later_epoch a_newcomer_gets_what_the_others_have_too_many a_late_copy_of_a_give_frees_nothing
            who_leaves_frees_its_partitions_and_uses_up_its_id the_partitions_of_the_dead_are_free
            a_lease_that_is_over_frees_its_partitions an_emptied_store_gives_all_back_to_who_held_it
            shares_go_by_slots a_topic_that_grows_is_shared_anew topics_are_owned_apart a_spoiled_topic_fails_alone
            announced_slots_are_taken_once_for_a_task_that_is_known slots_are_as_the_pure_function_says
            who_found_too_few_slots_is_woken_once messages_reach_the_worker
            the_latest_acknowledged_tick_only_grows periodic_tasks_are_listed_by_name
            declarations_are_as_the_pure_function_says
            admissions_are_as_the_pure_function_says limits_are_kept_apart
            a_line_moves_at_the_present_rate_and_is_left_by_who_starts
            permits_are_as_the_pure_function_says what_is_returned_is_free
            after_an_outage_lapsed_permits_are_left_to_their_runs
        );
    };
    ($backend:ident, $store:expr; $($test:ident)*) => {
        mod $backend {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let store = $store;
                super::$test(&*store).await;
                assert_eq!(store.without_ttl().await, Vec::<String>::new(), "it has no TTL");
            })*
        }
    };
}

conformance_tests!(memory, MemoryStore::new(SystemClock::shared()));
#[cfg(feature = "redis")]
conformance_tests!(redis, redis_for_test().await);
#[cfg(feature = "redis")]
conformance_tests!(cluster, cluster_for_test().await);
// Whoever may not use channels gets no notices, and everything else.
#[cfg(feature = "redis")]
conformance_tests!(without_channels, restricted_for_test().await;
    claim_table claim_twice quarantine_counts_over_a_batch submit_changes_nothing_that_is_there
    success_needs_the_token success_of_a_lost_record failure_drops_what_is_transient extend_makes_a_lost_record_again
    a_task_given_back_can_be_claimed what_goes_on_under_its_record_can_be_carried a_retry_makes_way_for_the_next_record
    a_retry_in_place_keeps_the_record revoke_of_what_nobody_has_seen a_replay_starts_over_under_the_next_seq
    ttls_follow_the_transitions a_thousand_at_once progress_follows_the_token
    a_key_is_whose_it_was_first a_key_is_free_again_in_time a_worker_is_registered_until_it_leaves
    a_worker_without_heartbeats_is_lost_after_two_leases_and_reported_once
    a_lone_worker_owns_all the_partitions_of_the_dead_are_free
    the_latest_acknowledged_tick_only_grows periodic_tasks_are_listed_by_name
    admissions_are_as_the_pure_function_says permits_are_as_the_pure_function_says what_is_returned_is_free
);

const LEASE_MS: u64 = 60_000;

fn ask(seq: u64, nonce: u64) -> Arc<ClaimRequest> {
    Arc::new(ClaimRequest { seq, attempt: 1, nonce, task: "add".into(), queue: "default".into() })
}

fn submission(id: &TaskId) -> Submission {
    Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to: None, eta: None }
}

fn worker(name: &str) -> Claimer {
    Claimer { worker: name.into(), lease_ms: LEASE_MS, take_over: true, quarantine: 9, max_deliveries: 5 }
}

fn lease(id: &TaskId, ask: &Arc<ClaimRequest>, token: u64, recent: bool) -> Lease {
    Lease { id: id.clone(), ask: Arc::clone(ask), held: LeaseProof { token, recent } }
}

fn ended(lease: Lease, end: End) -> Finish {
    Finish { lease, end: Arc::new(end), reply_to: None, ttl_ms: ttl::RESULT }
}

fn success(lease: Lease, result: &str) -> Finish {
    ended(lease, End::succeeded(Some(result.into())))
}

async fn finish(store: &dyn Subject, run: &Finish) -> Finished {
    only(store.finish(std::slice::from_ref(run)).await)
}

async fn succeed(store: &dyn Subject, lease: Lease, result: &str) -> Finished {
    finish(store, &success(lease, result)).await
}

async fn give_back(store: &dyn Subject, lease: Lease) -> Finished {
    finish(store, &ended(lease, End::given_back())).await
}

fn only<T>(answers: Answers<T>) -> T {
    let mut answers = answers.unwrap();
    assert_eq!(answers.len(), 1);
    answers.pop().unwrap().unwrap()
}

async fn claim(store: &dyn Subject, by: &Claimer, id: &TaskId, ask: &Arc<ClaimRequest>) -> Claim {
    only(store.claim(by, &[(id.clone(), Arc::clone(ask))]).await)
}

async fn granted(store: &dyn Subject, id: &TaskId, ask: &Arc<ClaimRequest>) -> u64 {
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

async fn submit_changes_nothing_that_is_there(store: &dyn Subject) {
    let (fresh, claimed) = (TaskId::new(), TaskId::new());
    granted(store, &claimed, &ask(1, 1)).await;
    let before = read(store, &claimed).await;
    let mail = |id: &TaskId| Submission { task: "mail".into(), queue: "q".into(), ..submission(id) };
    let tasks = [mail(&fresh), mail(&claimed)];
    store.submit(&tasks).await.unwrap();
    let queued = read(store, &fresh).await.unwrap();
    let now_us = queued.queued_at.unwrap() * 1_000;
    assert_eq!(queued, TaskState::queued("mail".into(), "q".into(), now_us));
    store.submit(&tasks).await.unwrap();
    assert_eq!(read(store, &fresh).await, Some(queued));
    assert_eq!(read(store, &claimed).await, before);
}

async fn ttls_follow_the_transitions(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let about = async |ttl_ms: u64| {
        let left = store.ttl_ms(&id).await;
        assert!((ttl_ms - 10_000..=ttl_ms).contains(&left), "{left} of {ttl_ms}");
    };
    store.submit(&[submission(&id)]).await.unwrap();
    about(ttl::WAITING).await;
    let token = granted(store, &id, &asked).await;
    about(ttl::WAITING).await;
    store.extend(&"w1".into(), LEASE_MS, &[lease(&id, &asked, token, true)]).await.unwrap();
    about(ttl::WAITING).await;
    let marker = Finish { ttl_ms: ttl::MARKER, ..success(lease(&id, &asked, token, true), "3") };
    finish(store, &marker).await;
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
    give_back(store, lease(&id, &asked, token, true)).await;
    about(ttl::WAITING).await;
}

async fn a_spoiled_key_fails_alone(store: &dyn Subject) {
    let ids = [TaskId::new(), TaskId::new(), TaskId::new()];
    if !store.spoil(&ids[1]).await {
        return;
    }
    fn check<T: std::fmt::Debug>(answers: Answers<T>) -> [T; 2] {
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
    assert_eq!(check(store.finish(&runs).await), [Finished::Recorded; 2]);
    let back = leases.into_iter().map(|lease| ended(lease, End::given_back())).collect::<Vec<_>>();
    assert_eq!(check(store.finish(&back).await), [Finished::Stale; 2]);
    let carried = ids.clone().map(|id| (id, 1));
    assert_eq!(check(store.carry(&carried).await), [false; 2], "they have ended");
    assert_eq!(check(store.dead_lettered(&carried).await), [false; 2], "they have not failed");
    let client: ClientId = "c".into();
    assert!(check(store.read(&ids, Some(&client)).await).iter().all(Option::is_some));
    assert!(check(store.watch(&ids, &client).await).iter().all(Option::is_some));
    assert!(matches!(store.submit(&ids.map(|id| submission(&id))).await, Err(StoreError::WrongType { .. })));
}

async fn a_thousand_at_once(store: &dyn Subject) {
    let ids = (0..1_000).map(|_| TaskId::new()).collect::<Vec<_>>();
    store.submit(&ids.iter().map(submission).collect::<Vec<_>>()).await.unwrap();
    let asked = ask(1, 1);
    let asks = ids.iter().map(|id| (id.clone(), Arc::clone(&asked))).collect::<Vec<_>>();
    let claims = store.claim(&worker("w1"), &asks).await.unwrap();
    let run = |(at, claim): (usize, Result<Claim, StoreError>)| match claim.unwrap() {
        Claim::Granted { token, .. } => success(lease(&ids[at], &asked, token, true), &at.to_string()),
        other => panic!("{other:?}"),
    };
    let runs = claims.into_iter().enumerate().map(run).collect::<Vec<_>>();
    let answers = store.finish(&runs).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Finished::Recorded))));
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
        let asked = Arc::new(ClaimRequest { task: "my task\n\0 ä".into(), ..(*ask(1, u64::MAX)).clone() });
        let token = granted(store, &id, &asked).await;
        store.plant(&id, None).await;
        let result = "\"\\n ä 3:x,\"\n\r\n ";
        let run = Finish { reply_to: Some("bytes".into()), ..success(lease(&id, &asked, token, true), result) };
        assert_eq!(finish(store, &run).await, Finished::Recorded);
        let state = read(store, &id).await.unwrap();
        assert_eq!((&*state.task, state.result.as_deref()), ("my task\n\0 ä", Some(result)));
        let reply = Reply { id, task: None, status: Status::Success, result: Some(result.into()), error: None };
        assert_eq!(next(&mut replies).await, Notice::Replies(vec![reply]));
    }
}
