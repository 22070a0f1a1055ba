//! The registry of workers.

use super::*;
use crate::{
    core::{priority::Priority, registry},
    store::RunningIn,
};

pub(super) fn info(id: &str) -> WorkerInfo {
    WorkerInfo {
        id: id.to_owned(),
        host: "42".to_owned(),
        pid: 7,
        version: "0.1.0".to_owned(),
        queues: vec!["default".to_owned(), "mail".to_owned()],
        tasks: vec!["add".to_owned(), "mul".to_owned()],
        slots: 20,
        running: 1,
        running_in: vec![RunningIn { queue: "mail".to_owned(), priority: Priority::High, tasks: 1 }],
        running_ids: vec!["a \"b\"".to_owned()],
        processed: 3,
        failed: 1,
        overrun: 2,
        started_ms: 1_700_000_000_000,
        seen_ms: 0,
    }
}

/// The lease of the workers in these tests. Who has not sent a heartbeat for two of them is declared dead, subscribed or not.
const LONG_LEASE_MS: u64 = 60_000;

pub(super) async fn beat(store: &dyn Subject, id: &str) -> Beaten {
    store.beat(&info(id), 0, LONG_LEASE_MS).await.unwrap()
}

/// Heartbeats of this worker, as fast as it is asked for them, until one of them declares somebody dead.
async fn beat_until_lost(store: &dyn Subject, id: &str, lease_ms: u64) -> Beaten {
    let beats = async {
        loop {
            let beaten = store.beat(&info(id), 0, lease_ms).await.unwrap();
            if !beaten.lost.is_empty() {
                return beaten;
            }
            tokio::time::sleep(Duration::from_millis(beaten.look_again_ms.unwrap_or(50).clamp(1, 50))).await;
        }
    };
    timeout(Duration::from_secs(10), beats).await.expect("somebody is declared dead")
}

/// Heartbeats of both, until each has sent one that is later than the first one over the connection.
async fn make_witnesses(store: &dyn Subject, ids: [&str; 2]) {
    let first_us = beat(store, ids[0]).await.now_us;
    let mut last_us = beat(store, ids[1]).await.now_us;
    while last_us / 1_000 <= first_us / 1_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        beat(store, ids[0]).await;
        last_us = beat(store, ids[1]).await.now_us;
    }
}

async fn ids(store: &dyn Subject) -> Vec<String> {
    let mut ids = store.workers().await.unwrap().into_iter().map(|worker| worker.id).collect::<Vec<_>>();
    ids.sort_unstable();
    ids
}

pub(super) async fn a_worker_is_registered_until_it_leaves(store: &dyn Subject) {
    for is_new in [true, false] {
        let beaten = beat(store, "w1").await;
        assert_eq!((beaten.is_new, beaten.lost), (is_new, vec![]));
    }
    let beaten = store.beat(&WorkerInfo { processed: 4, ..info("w2") }, 0, LONG_LEASE_MS).await.unwrap();
    let now_us = store.now_us().await.unwrap();
    assert!(now_us.abs_diff(beaten.now_us) < 10_000_000, "{beaten:?} at {now_us}");
    let Beaten { now_us: at, is_subscribed, .. } = beaten;
    assert_eq!(beaten, Beaten { is_new: true, now_us: at, is_subscribed, ..Beaten::default() });
    let mut workers = store.workers().await.unwrap();
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    for worker in &mut workers {
        assert!((now_us / 1_000).abs_diff(std::mem::take(&mut worker.seen_ms)) < 10_000);
    }
    assert_eq!(workers, [info("w1"), WorkerInfo { processed: 4, ..info("w2") }]);
    for _ in 0..2 {
        store.leave("w1").await.unwrap();
        assert_eq!(ids(store).await, ["w2"]);
        // A late heartbeat brings it back no more.
        assert!(beat(store, "w1").await.is_gone);
    }
    let beaten = store.beat(&info("w2"), beaten.now_us / 1_000, LONG_LEASE_MS).await.unwrap();
    assert_eq!(beaten.dead, ["w1".into()], "the others learn of it");
    let long_after = (beaten.now_us / 1_000) + 1_000;
    assert!(store.beat(&info("w2"), long_after, LONG_LEASE_MS).await.unwrap().dead.is_empty());
}

pub(super) async fn a_worker_without_heartbeats_is_lost_after_two_leases_and_reported_once(store: &dyn Subject) {
    const SHORT_LEASE_MS: u64 = 100;
    beat(store, "lost").await;
    let lost = store.workers().await.unwrap().remove(0);
    beat_until_late(store, lost.seen_ms + 2 * SHORT_LEASE_MS).await;
    let (a, b) = (info("a"), info("b"));
    let first_us = store.now_us().await.unwrap();
    let beats = async || {
        let (a, b) = tokio::join!(store.beat(&a, 0, SHORT_LEASE_MS), store.beat(&b, 0, SHORT_LEASE_MS));
        [a.unwrap(), b.unwrap()]
    };
    let mut reports = Vec::new();
    let mut last_us = first_us;
    // The age is counted from the first heartbeat over the caller's connection.
    while last_us < first_us + 500_000 {
        for beaten in beats().await {
            last_us = beaten.now_us;
            reports.extend(beaten.lost);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // On a slow machine they may lose each other.
    reports.retain(|worker| worker.id == "lost");
    assert_eq!(reports, [lost]);
    assert!(beat(store, "lost").await.is_gone, "its id is used up");
    assert!(!ids(store).await.contains(&"lost".to_owned()));
}

async fn beat_until_late(store: &dyn Subject, time_ms: u64) {
    while store.now_us().await.unwrap() / 1_000 <= time_ms {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// By the clock of a store that has gone forward everybody is late, so nobody is.
pub(super) async fn who_was_away_for_a_lease_declares_nobody_dead_by_age(store: &dyn Subject) {
    const SHORT_LEASE_MS: u64 = 100;
    beat(store, "other").await;
    let other = store.workers().await.unwrap().remove(0);
    let answered_ms = store.beat(&info("a"), 0, SHORT_LEASE_MS).await.unwrap().now_us / 1_000;
    beat_until_late(store, other.seen_ms.max(answered_ms) + 3 * SHORT_LEASE_MS).await;
    let back = store.beat(&info("a"), answered_ms, SHORT_LEASE_MS).await.unwrap();
    assert!(back.lost.is_empty(), "{back:?}");
    let soon = store.beat(&info("a"), back.now_us / 1_000, SHORT_LEASE_MS).await.unwrap();
    assert!(soon.lost.is_empty() || soon.now_us > back.now_us + 2_000 * SHORT_LEASE_MS, "{soon:?}");
    let lost = beat_until_lost(store, "a", SHORT_LEASE_MS).await.lost;
    assert_eq!(lost.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["other"]);
}

pub(super) async fn a_worker_whose_subscription_breaks_is_declared_dead_in_a_second(store: &dyn Subject) {
    if !store.sees_subscriptions() {
        return;
    }
    let _a = open_control(store, "a").await;
    let victim = open_control(store, "victim").await;
    assert!(beat(store, "a").await.is_subscribed);
    make_witnesses(store, ["a", "victim"]).await;
    assert_eq!(beat(store, "a").await.look_again_ms, None);
    let dropped = std::time::Instant::now();
    drop(victim);
    let beaten = beat_until_lost(store, "a", LONG_LEASE_MS).await;
    let after = dropped.elapsed();
    assert!((Duration::from_millis(740)..Duration::from_millis(LONG_LEASE_MS)).contains(&after), "{after:?}");
    assert_eq!(beaten.lost.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["victim"]);
    assert_eq!(beaten.dead, ["victim".into()]);
    assert_eq!(ids(store).await, ["a"]);
    assert!(beat(store, "victim").await.is_gone);
    let again = beat(store, "a").await;
    assert_eq!((again.lost, again.dead), (vec![], vec!["victim".into()]), "reported once, and known to all");
}

pub(super) async fn a_deaf_worker_that_sends_heartbeats_lives(store: &dyn Subject) {
    if !store.sees_subscriptions() {
        return;
    }
    let _a = open_control(store, "a").await;
    // A machine that stood still makes it late: then another one has to show it.
    for attempt in 0.. {
        let deaf = format!("deaf{attempt}");
        if stays_with_heartbeats_alone(store, &deaf).await {
            return;
        }
        store.leave(&deaf).await.unwrap();
    }
}

/// Whether the others leave a worker without a subscription alone for 2 s; `false`: its heartbeats could not be sent in time.
async fn stays_with_heartbeats_alone(store: &dyn Subject, deaf: &str) -> bool {
    make_witnesses(store, ["a", deaf]).await;
    let mut seen_us = beat(store, deaf).await.now_us;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_millis(2_000) {
        // A little less often than the others look.
        for _ in 0..4 {
            let seen = beat(store, "a").await;
            if seen.now_us > seen_us + registry::BEAT_MS * 1_000 {
                return false;
            }
            assert!(seen.lost.iter().all(|lost| lost.id != deaf), "{seen:?}");
            assert_eq!(seen.look_again_ms, None, "it is not late, so nobody looks again earlier");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let beaten = beat(store, deaf).await;
        if beaten.now_us > seen_us + registry::BEAT_MS * 1_000 {
            return false;
        }
        assert!(!beaten.is_gone && !beaten.is_subscribed, "{beaten:?}");
        seen_us = beaten.now_us;
    }
    true
}

pub(super) async fn the_claims_of_a_dead_worker_are_over(store: &dyn Subject) {
    if !store.sees_subscriptions() {
        return;
    }
    let (id, revoked, early) = (TaskId::new(), TaskId::new(), TaskId::new());
    let by = |name: &str| Claimer { take_over: false, ..worker(name) };
    let tokens = [granted(store, &id, &ask(1, 1)).await, granted(store, &revoked, &ask(1, 1)).await];
    assert_eq!(only(store.revoke(std::slice::from_ref(&revoked)).await), Revocation::Asked("w1".into()));
    store.plant(&early, Some(running(store, -1).await)).await;
    for task in [&id, &revoked, &early] {
        assert!(matches!(claim(store, &by("w2"), task, &ask(1, 2)).await, Claim::Held { mine: false, .. }));
    }
    store.leave("w1").await.unwrap();
    for task in [&id, &early] {
        match claim(store, &by("w2"), task, &ask(1, 2)).await {
            Claim::Granted { token, deliveries: 1, attempt: 1 } => assert!(token > tokens[0]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(claim(store, &by("w2"), task, &ask(1, 2)).await, Claim::Granted { deliveries: 1, .. }));
        assert!(matches!(claim(store, &by("w3"), task, &ask(1, 3)).await, Claim::Held { mine: false, .. }));
    }
    assert_eq!(claim(store, &by("w2"), &revoked, &ask(1, 2)).await, Claim::Revoked);
    assert_eq!(succeed(store, lease(&id, &ask(1, 1), tokens[0], true), "3").await, Finished::Stale);
}

/// Opens the control channel of a worker and waits until it is open.
pub(super) async fn open_control(store: &dyn Subject, worker: &str) -> Box<dyn NoticeReceiver> {
    let mut control = store.control(&worker.into()).await.unwrap();
    assert_eq!(next(&mut control).await, Notice::Missed);
    control
}
