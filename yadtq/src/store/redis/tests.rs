//! What only a Redis can do: forget its scripts, go away, come back, hang; and what it costs in memory.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface, SortedSetsInterface};
use tokio::time::timeout;

use super::{
    RedisStore,
    testing::{OwnServer, connected, fresh_namespace, redis_for_test, until},
};
use crate::{
    core::{
        lifecycle::{Ask, Claim, Claimer, Held, Outcome, Progress, Status, TaskState, Verdict},
        names::TaskId,
        ticks::{Declaration, Missed},
        unique::{Reserved, UniqueKey},
    },
    store::{
        Completion, Lease, Notice, Replies, Reply, Reservation, Store, StoreError, Submission, conformance::Subject,
        ttl,
    },
};

const WITHIN: Duration = Duration::from_secs(20);

fn claimer() -> Claimer {
    Claimer { worker: "w1".into(), lease_ms: 6_000, take_over: true, quarantine: 1, max_deliveries: 5 }
}

fn success(lease: Lease, result: &str) -> Completion {
    let outcome = Outcome { status: Status::Success, result: Some(result.into()), error: None, hand_on: None };
    Completion { lease, outcome: Arc::new(outcome), reply_to: Some("client".into()), ttl_ms: ttl::RESULT }
}

/// The whole life of a task.
async fn run(store: &RedisStore, id: &TaskId, result: &str) -> Result<(), StoreError> {
    let task = Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to: None, eta: None };
    store.submit(&[task]).await?;
    let ask = Arc::new(Ask { seq: 1, attempt: 1, nonce: 1, task: "add".into(), queue: "default".into() });
    let claim = store.claim(&claimer(), &[(id.clone(), Arc::clone(&ask))]).await?.remove(0)?;
    let Claim::Granted { token, .. } = claim else { panic!("{claim:?}") };
    let lease = Lease { id: id.clone(), ask, held: Held { token, recent: true } };
    assert_eq!(store.complete(&[success(lease, result)]).await?.remove(0)?, Verdict::Recorded);
    Ok(())
}

async fn next(replies: &mut Box<dyn Replies>) -> Notice {
    timeout(WITHIN, replies.next()).await.expect("told in time")
}

fn reply(id: TaskId, result: &str) -> Notice {
    Notice::Replies(vec![Reply { id, status: Status::Success, result: Some(result.into()), error: None }])
}

#[tokio::test]
async fn a_finished_small_task_takes_at_most_400_bytes() {
    let store = redis_for_test().await;
    let (id, key) = (TaskId::new(), |id| store.keys.task(id));
    run(&store, &id, "3").await.unwrap();
    let usage = fred::types::CustomCommand::new_static("MEMORY", None, false);
    let arguments = vec!["USAGE".to_owned(), key(&id)];
    let bytes: u64 = store.connection.client().custom(usage, arguments).await.unwrap();
    assert!(bytes <= 400, "{bytes} bytes");
}

/// Whichever way a task ends.
#[tokio::test]
async fn a_finished_task_keeps_nothing_transient() {
    let store = redis_for_test().await;
    let run = TaskState { status: Status::Running, token: 7, ..TaskState::queued("add".into(), "q".into(), 5_000) };
    let progress = Some(Progress { number: 1, value: "50".into() });
    let run = TaskState { worker: Some("w1".into()), nonce: 1, lease_until: 1, progress, ..run };
    let ask = Arc::new(Ask { seq: 1, attempt: 1, nonce: 2, task: "add".into(), queue: "q".into() });
    for end in ["complete", "claim: too often", "claim: revoked", "release: revoked"] {
        let id = TaskId::new();
        let deliveries = if end == "claim: too often" { 5 } else { 0 };
        store.plant(&id, Some(TaskState { deliveries, revoke: end.ends_with("revoked"), ..run.clone() })).await;
        store.watch(std::slice::from_ref(&id), &"client".into()).await.unwrap();
        let lease = Lease { id: id.clone(), ask: Arc::clone(&ask), held: Held { token: 7, recent: true } };
        match end.split(':').next() {
            Some("complete") => drop(store.complete(&[success(lease, "3")]).await.unwrap()),
            Some("release") => drop(store.release(&[lease]).await.unwrap()),
            _ => drop(store.claim(&claimer(), &[(id.clone(), Arc::clone(&ask))]).await.unwrap()),
        }
        let fields: Vec<String> = store.connection.client().hkeys(store.keys.task(&id)).await.unwrap();
        let transient =
            ["worker", "nonce", "lease-until", "revoke", "waiters", "watchers", "progress", "progress-number"];
        assert!(fields.contains(&"finished-at".to_owned()), "{end}: {fields:?}");
        assert!(!fields.iter().any(|field| transient.contains(&&**field)), "{end}: {fields:?}");
    }
}

/// It outlives a weekend without workers, and its own next tick.
#[tokio::test]
async fn a_declaration_is_forgotten_some_days_after_its_next_tick() {
    let store = redis_for_test().await;
    let now = store.now_us().await.unwrap() / 1_000;
    let mut by = Declaration {
        name: "nightly".into(),
        schedule: "@daily".into(),
        zone: Some("UTC".into()),
        missed: Missed::Skip,
        task: "report".into(),
        queue: "default".into(),
        next: Some(now + 86_400_000),
        last: None,
        now,
    };
    store.declare(std::slice::from_ref(&by)).await.unwrap().remove(0).unwrap();
    let client = store.connection.client();
    let left: u64 = client.pttl(store.keys.tick("nightly")).await.unwrap();
    assert!((ttl::WAITING + 86_390_000..=ttl::WAITING + 86_400_000).contains(&left), "{left}");
    // The list forgets it with the next declaration of anything.
    by.name = "other".into();
    by.now += ttl::WAITING + 86_400_001;
    store.declare(std::slice::from_ref(&by)).await.unwrap().remove(0).unwrap();
    let names: Vec<String> = client.zrange(store.keys.ticks(), 0, -1, None, false, None, false).await.unwrap();
    assert_eq!(names, ["other"]);
    // Another program's key fails alone.
    client.set::<(), _, _>(store.keys.tick("spoiled"), "3", None, None, false).await.unwrap();
    let answers = store.declare(&[Declaration { name: "spoiled".into(), ..by.clone() }, by]).await.unwrap();
    assert!(
        matches!(&answers[..], [Err(StoreError::WrongType { key, .. }), Ok(_)] if key.ends_with(":tick:{spoiled}"))
    );
}

#[tokio::test]
async fn a_key_that_holds_something_else_fails_alone() {
    let store = redis_for_test().await;
    let keys = ["a", "list", "text", "b"].map(|key| UniqueKey { task: "add".into(), key: key.into() });
    let client = store.connection.client();
    client.hset::<(), _, _>(store.keys.unique(&keys[1]), ("field", "3")).await.unwrap();
    client.set::<(), _, _>(store.keys.unique(&keys[2]), "something", None, None, false).await.unwrap();
    let id = TaskId::new();
    let reservations = keys.clone().map(|key| Reservation { key, id: id.clone(), ttl_ms: 60_000 });
    let told = store.reserve(&reservations).await.unwrap();
    let is_foreign = |key: &str, what: &str| key.contains(":unique:{add:") && !what.is_empty();
    for refused in &told[1..3] {
        assert!(matches!(refused, Err(StoreError::WrongType { key, detail }) if is_foreign(key, detail)), "{told:?}");
    }
    assert!(matches!((&told[0], &told[3]), (Ok(Reserved::New), Ok(Reserved::New))), "{told:?}");
    let confirmed = store.confirm(&keys.map(|key| (key, id.clone()))).await.unwrap();
    assert!(
        matches!(confirmed[..], [Ok(true), Err(StoreError::WrongType { .. }), Ok(false), Ok(true)]),
        "{confirmed:?}"
    );
}

#[tokio::test]
async fn a_result_too_large_for_the_channel_is_told_by_its_id() {
    let store = redis_for_test().await;
    let mut replies = store.replies(&"client".into()).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    let (large, small) = (TaskId::new(), TaskId::new());
    run(&store, &large, &"x".repeat(64 * 1_024 + 1)).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Ended(vec![large.clone()]));
    assert_eq!(store.read(&[large], None).await.unwrap().remove(0).unwrap().unwrap().result.unwrap().len(), 65_537);
    run(&store, &small, "3").await.unwrap();
    assert_eq!(next(&mut replies).await, reply(small, "3"));
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_not_missed() {
    let server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    run(&store, &TaskId::new(), "3").await.unwrap();
    store.connection.client().script_flush(false).await.unwrap();
    run(&store, &TaskId::new(), "3").await.unwrap();
}

#[tokio::test]
async fn an_outage_ends_where_it_began() {
    let mut server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    let mut replies = store.replies(&"client".into()).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    let before = TaskId::new();
    run(&store, &before, "1").await.unwrap();
    assert_eq!(next(&mut replies).await, reply(before.clone(), "1"));

    server.stop();
    until("disconnected", || store.connected_for().is_none()).await;
    let started = Instant::now();
    let error = run(&store, &before, "1").await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(detail) if detail.contains("127.0.0.1")), "{error}");
    assert!(started.elapsed() < Duration::from_secs(6), "took {:?}", started.elapsed());

    server.start_again().await;
    until("connected again", || store.connected_for().is_some()).await;
    assert!(store.connected_for().unwrap() < started.elapsed());
    assert_eq!(next(&mut replies).await, Notice::Missed);
    let after = TaskId::new();
    run(&store, &after, "2").await.unwrap();
    assert_eq!(next(&mut replies).await, reply(after, "2"));
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_found() {
    let mut server = OwnServer::start().await;
    server.stop();
    let store = RedisStore::connect(&server.url(), &fresh_namespace()).unwrap();
    let mut replies = store.replies(&"client".into()).await.unwrap();
    assert_eq!(store.connected_for(), None);
    server.start_again().await;
    assert_eq!(next(&mut replies).await, Notice::Missed);
    until("connected", || store.connected_for().is_some()).await;
    run(&store, &TaskId::new(), "3").await.unwrap();
}

/// Accepts, and never answers.
#[tokio::test]
async fn a_half_open_server_is_an_error_within_10_s() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let store = RedisStore::connect(&url, &fresh_namespace()).unwrap();
    let started = Instant::now();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(store.connected_for(), None);
}

/// A server that stops to answer keeps its connections; so do those that wait for its answers.
#[tokio::test]
async fn a_server_that_stops_to_answer_is_noticed_within_10_s() {
    let server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    let mut replies = store.replies(&"client".into()).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    server.signal("STOP");
    let stopped = Instant::now();
    until("disconnected", || store.connected_for().is_none()).await;
    assert!(stopped.elapsed() < Duration::from_secs(10), "took {:?}", stopped.elapsed());
    server.signal("CONT");
    until("connected again", || store.connected_for().is_some()).await;
    let id = TaskId::new();
    run(&store, &id, "3").await.unwrap();
    // The reply channel may have slept through it.
    let notice = next(&mut replies).await;
    assert!(notice == Notice::Missed || notice == reply(id, "3"), "{notice:?}");
}

#[tokio::test]
async fn ping_describes_the_server() {
    let server = OwnServer::start().await;
    let info = connected(&server.url()).await.ping().await.unwrap();
    assert!(info.summary.starts_with("redis ") && info.summary.contains("127.0.0.1:"), "{info:?}");
    assert!(info.warnings.iter().any(|warning| warning.contains("appendonly")), "{info:?}");
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_named_without_its_password() {
    let tls: &[&str] = if cfg!(feature = "tls") { &[] } else { &["rediss://localhost:6379"] };
    let unusable = ["", "localhost:6379", "http://localhost", "redis://", "redis://h:99999", "redis://h/notanumber"];
    for url in unusable.iter().chain(tls) {
        let error = RedisStore::connect(url, &fresh_namespace()).unwrap_err();
        assert!(matches!(error, StoreError::Address { .. }), "{error:?}");
        assert!(error.to_string().contains(url), "{error}");
    }
    let error = RedisStore::connect("redis://me:secret@h:99999", &fresh_namespace()).unwrap_err().to_string();
    assert!(error.contains("redis://***@h:99999") && !error.contains("secret"), "{error}");
}
