//! What only a Redis can do: forget its scripts, go away, come back, hang; and what it costs in memory.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use fred::{
    interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface, SortedSetsInterface},
    types::CustomCommand,
};
use tokio::time::timeout;

use super::{
    RedisStore, TlsSettings,
    call::BYTES_PER_CALL,
    testing::{OwnServer, connected, fresh_namespace, redis_for_test, restricted_for_test, until},
};
use crate::{
    core::{
        lifecycle::{Claim, ClaimRequest, Claimer, End, Finished, LeaseProof, Progress, Revocation, Status, TaskState},
        limits::{Admission, Arrival, LATE_US, PermitTerms, Rate},
        names::{ClientId, TaskId},
        ownership::{OwnRequest, Owner, Partitions},
        registry::NOTICE_MS,
        slots::TaskSet,
        ticks::{Declaration, Missed},
        unique::{Reserved, UniqueKey},
    },
    store::{
        Channels, Finish, FreeSlots, Lease, Limits, MAX_WAITERS, Notice, NoticeReceiver, Ownership, PeriodicTasks,
        PermitKey, PermitRequest, RateRequest, Registry, Reply, Report, Reservation, Slots, Store, StoreError,
        Submission, Tasks, UniqueKeys, WantedSlots, WorkerInfo, conformance::Subject, ttl,
    },
    wire::offer::WorkerMessage,
};

const WITHIN: Duration = Duration::from_secs(20);

pub(super) fn claimer() -> Claimer {
    Claimer { worker: "w1".into(), lease_ms: 6_000, take_over: true, quarantine: 1, max_deliveries: 5 }
}

fn ended(lease: Lease, end: End) -> Finish {
    Finish { lease, end: Arc::new(end), reply_to: Some("client".into()), ttl_ms: ttl::RESULT }
}

fn success(lease: Lease, result: &str) -> Finish {
    ended(lease, End::succeeded(Some(result.into())))
}

/// The whole life of a task.
pub(super) async fn run(store: &RedisStore, id: &TaskId, result: &str) -> Result<(), StoreError> {
    let task = Submission { id: id.clone(), task: "add".into(), queue: "default".into(), reply_to: None, eta: None };
    store.submit(&[task]).await?;
    let ask = Arc::new(ClaimRequest { seq: 1, attempt: 1, nonce: 1, task: "add".into(), queue: "default".into() });
    let claim = store.claim(&claimer(), &[(id.clone(), Arc::clone(&ask))]).await?.remove(0)?;
    let Claim::Granted { token, .. } = claim else { panic!("{claim:?}") };
    let lease = Lease { id: id.clone(), ask, held: LeaseProof { token, recent: true } };
    assert_eq!(store.finish(&[success(lease, result)]).await?.remove(0)?, Finished::Recorded);
    Ok(())
}

/// Changes a setting of the server.
async fn set(store: &RedisStore, setting: &str, value: &str) {
    let config = fred::types::CustomCommand::new_static("CONFIG", None, false);
    store.client().await.custom::<(), _>(config, vec!["SET", setting, value]).await.unwrap();
}

pub(super) async fn next(replies: &mut Box<dyn NoticeReceiver>) -> Notice {
    timeout(WITHIN, replies.next()).await.expect("a notice in time")
}

pub(super) fn reply(id: TaskId, result: &str) -> Notice {
    Notice::Replies(vec![Reply { id, task: None, status: Status::Success, result: Some(result.into()), error: None }])
}

#[tokio::test]
async fn a_finished_small_task_takes_at_most_400_bytes() {
    let store = redis_for_test().await;
    let (id, key) = (TaskId::new(), |id| store.keys.task(id));
    run(&store, &id, "3").await.unwrap();
    let usage = fred::types::CustomCommand::new_static("MEMORY", None, false);
    let arguments = vec!["USAGE".to_owned(), key(&id)];
    let bytes: u64 = store.client().await.custom(usage, arguments).await.unwrap();
    assert!(bytes <= 400, "{bytes} bytes");
}

/// Whichever way a task ends.
#[tokio::test]
async fn a_finished_task_keeps_nothing_transient() {
    let store = redis_for_test().await;
    let run = TaskState { status: Status::Running, token: 7, ..TaskState::queued("add".into(), "q".into(), 5_000) };
    let progress = Some(Progress { number: 1, value: "50".into() });
    let run = TaskState { worker: Some("w1".into()), nonce: 1, lease_until: 1, progress, ..run };
    let ask = Arc::new(ClaimRequest { seq: 1, attempt: 1, nonce: 2, task: "add".into(), queue: "q".into() });
    for end in ["success", "claim: too often", "claim: revoked", "given back: revoked"] {
        let id = TaskId::new();
        let deliveries = if end == "claim: too often" { 5 } else { 0 };
        store.plant(&id, Some(TaskState { deliveries, revoke: end.ends_with("revoked"), ..run.clone() })).await;
        store.watch(std::slice::from_ref(&id), &"client".into()).await.unwrap();
        let lease = Lease { id: id.clone(), ask: Arc::clone(&ask), held: LeaseProof { token: 7, recent: true } };
        match end.split(':').next() {
            Some("success") => drop(store.finish(&[success(lease, "3")]).await.unwrap()),
            Some("given back") => drop(store.finish(&[ended(lease, End::given_back())]).await.unwrap()),
            _ => drop(store.claim(&claimer(), &[(id.clone(), Arc::clone(&ask))]).await.unwrap()),
        }
        // Until its dead letter is published, the record says who does that.
        drop(store.dead_lettered(&[(id.clone(), 1)]).await.unwrap());
        let fields: Vec<String> = store.client().await.hkeys(store.keys.task(&id)).await.unwrap();
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
    let client = store.client().await;
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
    let client = store.client().await;
    client.hset::<(), _, _>(store.keys.unique(&keys[1]), ("field", "3")).await.unwrap();
    client.set::<(), _, _>(store.keys.unique(&keys[2]), "something", None, None, false).await.unwrap();
    let id = TaskId::new();
    let reservations = keys.clone().map(|key| Reservation { key, id: id.clone(), ttl_ms: 60_000 });
    let answers = store.reserve(&reservations).await.unwrap();
    let is_foreign = |key: &str, what: &str| key.contains(":unique:{add:") && !what.is_empty();
    for refused in &answers[1..3] {
        assert!(
            matches!(refused, Err(StoreError::WrongType { key, detail }) if is_foreign(key, detail)),
            "{answers:?}"
        );
    }
    assert!(matches!((&answers[0], &answers[3]), (Ok(Reserved::New), Ok(Reserved::New))), "{answers:?}");
    let confirmed = store.confirm(&keys.map(|key| (key, id.clone()))).await.unwrap();
    assert!(
        matches!(confirmed[..], [Ok(true), Err(StoreError::WrongType { .. }), Ok(false), Ok(true)]),
        "{confirmed:?}"
    );
}

#[tokio::test]
async fn a_result_too_large_for_the_channel_is_announced_by_its_id() {
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
    store.client().await.script_flush(false).await.unwrap();
    run(&store, &TaskId::new(), "3").await.unwrap();
}

#[tokio::test]
async fn a_server_without_room_can_still_be_read() {
    let server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    let ids = [TaskId::new(), TaskId::new()];
    run(&store, &ids[0], "3").await.unwrap();
    let (task, queue) = ("add".into(), "default".into());
    store.submit(&[Submission { id: ids[1].clone(), task, queue, reply_to: None, eta: None }]).await.unwrap();
    let config = CustomCommand::new_static("CONFIG", None, false);
    store.client().await.custom::<(), _>(config, vec!["SET", "maxmemory", "1"]).await.unwrap();
    let client = "waits".into();
    for read in [store.read(&ids, Some(&client)).await, store.watch(&ids, &client).await] {
        let statuses = read.unwrap().into_iter().map(|state| state.unwrap().unwrap().status);
        assert_eq!(statuses.collect::<Vec<_>>(), [Status::Success, Status::Queued]);
    }
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
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());

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
    let store = RedisStore::connect(&server.url(), &TlsSettings::default(), &fresh_namespace()).unwrap();
    let mut replies = store.replies(&"client".into()).await.unwrap();
    assert_eq!(store.connected_for(), None);
    server.start_again().await;
    assert_eq!(next(&mut replies).await, Notice::Missed);
    until("connected", || store.connected_for().is_some()).await;
    run(&store, &TaskId::new(), "3").await.unwrap();
}

/// The script calls since the last count, on a server of the test's own.
async fn calls(store: &RedisStore) -> usize {
    let client = store.client().await;
    let stats: String = client.info(Some(fred::types::InfoKind::CommandStats)).await.unwrap();
    let counts = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let count = counts.filter_map(|rest| rest.split(',').next()?.parse::<usize>().ok()).sum();
    let config = fred::types::CustomCommand::new_static("CONFIG", None, false);
    client.custom::<(), _>(config, vec!["RESETSTAT"]).await.unwrap();
    count
}

/// Redis does one call at a time, so the others wait for as long as the largest one takes.
#[tokio::test]
async fn no_call_moves_more_than_a_megabyte_and_one_task() {
    const LARGE: usize = 300 * 1_024;
    const SMALL: usize = 1_024;
    let server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    let ids: Vec<_> = (0..256).map(|_| TaskId::new()).collect();
    let ask = Arc::new(ClaimRequest { seq: 1, attempt: 1, nonce: 1, task: "add".into(), queue: "default".into() });
    let asks: Vec<_> = ids.iter().map(|id| (id.clone(), Arc::clone(&ask))).collect();
    let mut tokens = Vec::new();
    for claim in store.claim(&claimer(), &asks).await.unwrap() {
        let Claim::Granted { token, .. } = claim.unwrap() else { panic!("not granted") };
        tokens.push(token);
    }
    for watcher in 0..MAX_WAITERS {
        store.watch(&ids, &ClientId::from(format!("client-{watcher}"))).await.unwrap();
    }
    let report = |(id, token): (&TaskId, &u64), number, len| Report {
        id: id.clone(),
        token: *token,
        progress: Progress { number, value: "x".repeat(len).into() },
    };
    let runs = || ids.iter().zip(&tokens);
    let finish = |(id, token): (&TaskId, &u64), len| {
        let held = LeaseProof { token: *token, recent: true };
        success(Lease { id: id.clone(), ask: Arc::clone(&ask), held }, &"x".repeat(len))
    };
    // So that the server knows the scripts.
    store.progress(&[report((&ids[0], &tokens[0]), 1, 1)]).await.unwrap();
    store.finish(&[finish((&TaskId::new(), &1), 1)]).await.unwrap();
    calls(&store).await;

    let sent: Vec<_> = runs().map(|run| report(run, 2, SMALL)).collect();
    assert!(store.progress(&sent).await.unwrap().into_iter().all(|answer| answer.unwrap()));
    let (count, per_task) = (calls(&store).await, MAX_WAITERS * SMALL);
    assert!((256 * per_task).div_ceil(count) <= BYTES_PER_CALL + per_task, "{count} calls");

    let sent: Vec<_> = runs().skip(12).map(|run| finish(run, SMALL)).collect();
    let recorded = store.finish(&sent).await.unwrap();
    assert!(recorded.into_iter().all(|answer| answer.unwrap() == Finished::Recorded));
    let count = calls(&store).await;
    assert!((sent.len() * per_task).div_ceil(count) <= BYTES_PER_CALL + per_task, "{count} calls");

    let sent: Vec<_> = runs().take(12).map(|run| finish(run, LARGE)).collect();
    store.finish(&sent).await.unwrap();
    assert_eq!(calls(&store).await, 3, "four results fill a call");
    let read = store.read(&ids[..14], None).await.unwrap();
    let lens = read.iter().map(|state| state.as_ref().unwrap().as_ref().unwrap().result.as_ref().unwrap().len());
    assert_eq!(lens.collect::<Vec<_>>(), [[LARGE; 12].as_slice(), &[SMALL; 2]].concat(), "in their order");
    assert_eq!(calls(&store).await, 4);
}

/// It is no fault of any key, so the whole call fails, and can be sent again.
#[tokio::test]
async fn a_server_that_takes_no_writes_counts_as_away_and_can_be_read() {
    let server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    let (id, waits) = (TaskId::new(), TaskId::new());
    run(&store, &id, "3").await.unwrap();
    let task = Submission { id: waits.clone(), task: "add".into(), queue: "q".into(), reply_to: None, eta: None };
    store.submit(std::slice::from_ref(&task)).await.unwrap();
    set(&store, "min-replicas-to-write", "1").await;

    let ask = Arc::new(ClaimRequest { seq: 1, attempt: 1, nonce: 1, task: "add".into(), queue: "q".into() });
    let lease = Lease { id: waits.clone(), ask: Arc::clone(&ask), held: LeaseProof { token: 7, recent: true } };
    let owner =
        Owner { worker: "w1".into(), slots: 1, lease_ms: 6_000, left_ms: 6_000, is_leaving: false, dead: Vec::new() };
    let request = OwnRequest {
        topic: "t".into(),
        partitions: 1,
        is_used: false,
        keep: Partitions::new(),
        give: Partitions::new(),
    };
    let slots = FreeSlots { queue: "q".into(), tasks: Arc::new(TaskSet::new(vec!["add"])), count: 1 };
    let wanted = WantedSlots { queue: "q".into(), task: "add".into(), count: 1 };
    let permit = PermitKey { limit: "l".into(), run: "r".into() };
    let request_permit = PermitRequest { key: permit.clone(), max_running: 1, holds: false };
    let info = WorkerInfo { id: "w1".to_owned(), ..WorkerInfo::default() };
    let unseen = [TaskId::new()];
    let answers = [
        store.submit(&[Submission { id: TaskId::new(), ..task }]).await.err(),
        store.claim(&claimer(), &[(waits.clone(), ask)]).await.err(),
        store.extend(&"w1".into(), 6_000, std::slice::from_ref(&lease)).await.map(drop).err(),
        store.revoke(&unseen).await.err(),
        store.beat(&info, 0, 6_000).await.err(),
        store.leave("w1").await.err(),
        store.own(&owner, &[request]).await.err(),
        store.announce(&"w1".into(), &[slots]).await.err(),
        store.take_slots(&"w1".into(), &[wanted]).await.err(),
        store.acquire_permit(PermitTerms { lease_ms: 6_000, take_over: true }, &[request_permit]).await.err(),
        store.release_permit(&[permit]).await.err(),
    ];
    for (at, answer) in answers.iter().enumerate() {
        match at {
            // Nothing to write: another run holds the task.
            2 => assert!(answer.is_none(), "{answer:?}"),
            _ => assert!(matches!(answer, Some(StoreError::WritesRefused { .. })), "{at}: {answer:?}"),
        }
    }
    assert_eq!(store.connected_for(), None);
    for state in store.read(&[id, waits], Some(&"client".into())).await.unwrap() {
        assert!(state.unwrap().is_some(), "reads work, even of a client that waits");
    }
    let generation = store.connections.generation("").unwrap();
    let allowed = Instant::now();
    set(&store, "min-replicas-to-write", "0").await;
    until("connected again", || store.connected_for().is_some()).await;
    assert!(store.connected_for().unwrap() < allowed.elapsed(), "it starts over");
    assert_eq!(store.connections.generation("").unwrap(), generation);
    run(&store, &TaskId::new(), "3").await.unwrap();
}

/// Accepts, and never answers.
#[tokio::test]
async fn a_half_open_server_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let store = RedisStore::connect(&url, &TlsSettings::default(), &fresh_namespace()).unwrap();
    let started = Instant::now();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(store.connected_for(), None);
}

/// A server that stops to answer keeps its connections; so do those that wait for its answers.
#[tokio::test]
async fn a_server_that_stops_to_answer_is_noticed() {
    let server = OwnServer::start().await;
    let store = connected(&server.url()).await;
    let mut replies = store.replies(&"client".into()).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    server.signal("STOP");
    let stopped = Instant::now();
    until("disconnected", || store.connected_for().is_none()).await;
    assert!(stopped.elapsed() < Duration::from_secs(20), "took {:?}", stopped.elapsed());
    server.signal("CONT");
    until("connected again", || store.connected_for().is_some()).await;
    let id = TaskId::new();
    run(&store, &id, "3").await.unwrap();
    // The reply channel may have slept through it.
    let notice = next(&mut replies).await;
    assert!(notice == Notice::Missed || notice == reply(id, "3"), "{notice:?}");
}

/// Everything that goes over channels is a hint.
#[tokio::test]
async fn a_user_without_channels_works_without_notices() {
    let store = restricted_for_test().await;
    let (client, ids) = (ClientId::from("client"), [TaskId::new(), TaskId::new()]);
    let mut replies = store.replies(&client).await.unwrap();
    let mut control = store.control(&"w1".into()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(next(&mut replies).await, Notice::Missed, "every second, so that the client looks");
        assert_eq!(next(&mut control).await, Notice::Missed);
    }
    run(&store, &ids[0], "3").await.unwrap();
    let ask = Arc::new(ClaimRequest { seq: 1, attempt: 1, nonce: 1, task: "add".into(), queue: "default".into() });
    let claim = store.claim(&claimer(), &[(ids[1].clone(), ask)]).await.unwrap().remove(0).unwrap();
    let Claim::Granted { token, .. } = claim else { panic!("{claim:?}") };
    store.watch(&ids[1..], &client).await.unwrap().remove(0).unwrap().unwrap();
    let progress = Progress { number: 1, value: "50".into() };
    assert!(store.progress(&[Report { id: ids[1].clone(), token, progress }]).await.unwrap().remove(0).unwrap());
    let revoked = store.revoke(&ids[1..]).await.unwrap().remove(0).unwrap();
    assert!(matches!(revoked, Revocation::Asked(_)), "{revoked:?}");

    // It is offered nothing, and offers nothing.
    let slots = FreeSlots { queue: "q".into(), tasks: Arc::new(TaskSet::new(["add"])), count: 1 };
    store.announce(&"w1".into(), &[slots]).await.unwrap();
    let wanted = [WantedSlots { queue: "q".into(), task: "add".into(), count: 1 }];
    assert_eq!(store.take_slots(&"w2".into(), &wanted).await.unwrap().remove(0).unwrap(), []);
    let message = ("w1".into(), WorkerMessage::Declined(Vec::new()));
    assert!(!Slots::send(&*store, &[message]).await.unwrap().remove(0).unwrap());

    // Only the age of its heartbeats counts.
    let info = |id: &str| WorkerInfo { id: id.to_owned(), ..WorkerInfo::default() };
    let beat = async |id: &str, lease_ms| store.beat(&info(id), 0, lease_ms).await.unwrap();
    let first_us = beat("w2", 60_000).await.now_us;
    let mut late_us = first_us;
    while late_us <= first_us + 1_000 {
        assert!(beat("w1", 60_000).await.is_subscribed, "or it would subscribe again");
        late_us = beat("silent", 60_000).await.now_us;
    }
    let mut now_us = late_us;
    while now_us < late_us + 2 * NOTICE_MS * 1_000 {
        let beaten = beat("w2", 60_000).await;
        assert!(beaten.lost.is_empty() && beaten.look_again_ms.is_none(), "{beaten:?}");
        now_us = beaten.now_us;
    }
    beat("w1", 60_000).await;
    let lost = beat("w1", 100).await.lost;
    assert_eq!(lost.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["silent"]);
}

#[tokio::test]
async fn ping_names_what_the_user_lacks() {
    let server = OwnServer::start().await;
    let warnings = async |lacks: &str| {
        let namespace = fresh_namespace();
        let url = server.add_user(&namespace, |right| !right.starts_with(lacks)).await;
        let store = RedisStore::connect(&url, &TlsSettings::default(), &namespace).unwrap();
        until("connected", || store.connected_for().is_some()).await;
        let info = store.ping().await.unwrap();
        let rights = info.warnings.into_iter().filter(|warning| warning.contains("this user"));
        (namespace, rights.collect::<Vec<_>>().join("\n"))
    };
    let (_, all) = warnings("nothing").await;
    assert_eq!(all, "");
    assert!(warnings("&").await.1.contains("ACL SETUSER <user> &test-"));
    assert!(warnings("+hdel").await.1.ends_with("ACL SETUSER <user> +hdel"));
    assert!(warnings("+pubsub|numsub").await.1.ends_with("ACL SETUSER <user> +pubsub|numsub"));
    assert!(warnings("+info").await.1.ends_with("ACL SETUSER <user> +info"));
    let (namespace, keys) = warnings("~{").await;
    assert!(keys.ends_with(&format!("ACL SETUSER <user> ~{{{namespace}:workers}}:*")), "{keys}");
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
    let tls: &[&str] = if cfg!(feature = "redis-tls") { &[] } else { &["rediss://localhost:6379"] };
    let unusable = ["", "localhost:6379", "http://localhost", "redis://", "redis://h:99999", "redis://h/notanumber"];
    for url in unusable.iter().chain(tls) {
        let error = RedisStore::connect(url, &TlsSettings::default(), &fresh_namespace()).unwrap_err();
        assert!(matches!(error, StoreError::Address { .. }), "{error:?}");
        assert!(error.to_string().contains(url), "{error}");
    }
    let error = RedisStore::connect("redis://me:secret@h:99999", &TlsSettings::default(), &fresh_namespace())
        .unwrap_err()
        .to_string();
    assert!(error.contains("redis://h:99999") && !error.contains("secret"), "{error}");
}

/// What the scripts do as time passes, and when the server's clock jumps.
#[tokio::test]
async fn late_tasks_leave_a_line_and_a_clock_that_goes_back_delays_nobody() {
    const HOUR_US: u64 = 3_600_000_000;
    let store = redis_for_test().await;
    let client = store.client().await;
    let (line, back) = (store.keys.rate("l:}") + ":line", store.keys.rate("l:}") + ":back");
    let ask = async |task: &str| {
        let (task, rate, arrival) = (task.parse().unwrap(), Rate::per_minute(1), Arrival::New);
        let request = RateRequest { task, limit: "l:}".into(), rate, arrival };
        store.admit(&[request]).await.unwrap().remove(0).unwrap()
    };
    assert_eq!(ask("first").await, Admission::Now);
    for (task, minutes) in [("a", 1), ("b", 2), ("c", 3)] {
        let Admission::In(us) = ask(task).await else { panic!("{task} waits") };
        assert!(us.abs_diff(minutes * 60_000_000) < 20_000_000, "{us}");
    }
    let now_us = store.now_us().await.unwrap();
    #[allow(clippy::cast_precision_loss, reason = "times in us are exact for the next 200 years")]
    let score = |time: u64| time as f64;
    let scores = vec![(score(now_us - LATE_US - 1_000_000), "a"), (score(now_us - 1_000_000), "b")];
    client.zadd::<(), _, _>(&back, None, None, false, false, scores).await.unwrap();
    let Admission::In(us) = ask("d").await else { panic!("two are in front") };
    assert!(us.abs_diff(180_000_000) < 20_000_000, "{us}");
    let waiting: Vec<String> = client.zrange(&line, 0, -1, None, false, None, false).await.unwrap();
    assert_eq!(waiting, ["b", "c", "d"]);

    let ahead_us = store.now_us().await.unwrap() + HOUR_US;
    client.hset::<(), _, _>(store.keys.rate("l:}"), ("started", ahead_us.to_string())).await.unwrap();
    let Admission::In(us) = ask("e").await else { panic!("three are in front") };
    assert!(us < 260_000_000, "{us}");

    let terms = PermitTerms { lease_ms: 60_000, take_over: true };
    let permit = async |run: &str| {
        let key = PermitKey { limit: "l:}".into(), run: run.into() };
        store.acquire_permit(terms, &[PermitRequest { key, max_running: 1, holds: false }]).await.unwrap().remove(0)
    };
    assert_eq!(permit("dead").await.unwrap(), None);
    let permits = store.keys.permits("l:}");
    let ahead = score(store.now_us().await.unwrap() / 1_000 + HOUR_US / 1_000 + 1_000_000);
    let scores = vec![(ahead, "clock"), (ahead - 1e3, "dead"), (ahead + 5e3, "line")];
    client.zadd::<(), _, _>(&permits, None, None, false, false, scores).await.unwrap();
    assert_eq!(permit("alive").await.unwrap(), None, "the lease of the dead one was over by the clock of then");
    assert!(permit("waits").await.unwrap().is_some_and(|ms| ms < 20_000), "as long as before");
}
