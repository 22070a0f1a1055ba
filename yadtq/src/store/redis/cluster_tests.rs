//! What only a cluster can do: lose one of its masters, replace it, and move its slots.
#![allow(clippy::unwrap_used)]

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use fred::util::redis_keyslot;

use super::{
    RedisStore,
    testing::{OwnCluster, OwnServer, connected, master_of, until},
    tests::{claimer, next, reply, run},
};
use crate::{
    core::{
        lifecycle::{Claim, ClaimRequest, Status, TaskState},
        names::{ClientId, TaskId},
    },
    store::{Channels, Notice, Store, StoreError, Submission, Tasks, conformance::Subject},
};

/// An id whose hash lies at this master.
fn id_at(store: &RedisStore, master: usize) -> TaskId {
    std::iter::repeat_with(TaskId::new).find(|id| master_of(&store.keys.task(id)) == master).unwrap()
}

fn ask() -> Arc<ClaimRequest> {
    Arc::new(ClaimRequest { seq: 1, attempt: 1, nonce: 1, task: "add".into(), queue: "default".into() })
}

/// Runs a task, as often as it takes until it works.
async fn run_at_last(store: &RedisStore, id: &TaskId) {
    let started = Instant::now();
    while let Err(error) = run(store, id, "3").await {
        assert!(error.is_outage() && started.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_call_that_fails_fails_alone() {
    let cluster = OwnCluster::start().await;
    for master in &cluster.masters {
        master.command("ACL SETUSER half on >password +@all ~*{a*").await.unwrap();
    }
    let store = connected(&cluster.url().replace("redis-cluster://", "redis-cluster://half:password@")).await;
    let ids = ["a1", "b1", "a2"].map(|id| TaskId::from_str(id).unwrap());
    let claims = store.claim(&claimer(), &ids.clone().map(|id| (id, ask()))).await.unwrap();
    let is_granted = |claim: &Result<Claim, _>| matches!(claim, Ok(Claim::Granted { .. }));
    assert!(is_granted(&claims[0]) && claims[1].is_err() && is_granted(&claims[2]), "{claims:?}");
    let read = store.read(&ids, Some(&"client".into())).await.unwrap();
    assert!(matches!(read[..], [Ok(Some(_)), Err(_), Ok(Some(_))]), "{read:?}");
    assert!(store.read(&ids[1..2], None).await.is_err(), "nothing is known of any");
}

#[tokio::test]
async fn a_subscription_waits_for_the_first_attempt_to_connect_to_its_master() {
    let cluster = OwnCluster::start().await;
    let home = &cluster.masters[1];
    home.signal("STOP");
    // The others are up.
    let store = connected(&cluster.url()).await;
    run(&store, &id_at(&store, 0), "1").await.unwrap();
    let mut clients = (0..).map(|number| ClientId::from(format!("client-{number}")));
    let client = clients.find(|client| master_of(&store.keys.reply(client)) == 1).unwrap();
    let mut replies = store.replies(&client).await.unwrap();
    // It chooses a master now.
    tokio::task::yield_now().await;
    home.signal("CONT");
    assert_eq!(next(&mut replies).await, Notice::Missed);
    let count = home.command(&format!("PUBSUB NUMSUB {}", store.keys.reply(&client))).await.unwrap();
    assert_eq!(count.into_array()[1].as_i64(), Some(1), "it is there");
}

#[tokio::test]
async fn a_master_that_is_gone_stops_no_call_for_the_others() {
    const LEASE_MS: u64 = 5_000;
    let mut cluster = OwnCluster::start().await;
    let store = connected(&cluster.url()).await;
    let ids = [0, 1, 2].map(|master| id_at(&store, master));
    // The client listens at the one that will be gone.
    let mut clients = (0..).map(|number| ClientId::from(format!("client-{number}")));
    let client = clients.find(|client| master_of(&store.keys.reply(client)) == 1).unwrap();
    let mut replies = store.replies(&client).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    // Whose lease is over, at each master.
    let lapsed = [0, 1, 2].map(|master| id_at(&store, master));
    let run_of_w2 = TaskState {
        status: Status::Running,
        token: 7,
        worker: Some("w2".into()),
        nonce: 2,
        lease_until: 1,
        ..TaskState::queued("add".into(), "q".into(), 5_000)
    };
    for id in &ids {
        run(&store, id, "1").await.unwrap();
    }

    cluster.masters[1].stop();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let read = store.read(&ids, None).await.unwrap();
        fastest = fastest.min(started.elapsed());
        assert!(matches!(&read[..], [Ok(Some(_)), Err(error), Ok(Some(_))] if error.is_outage()), "{read:?}");
    }
    println!("a batch with a dead master took {fastest:?}");
    assert!(fastest < Duration::from_secs(1), "no call waits for it: {fastest:?}");
    let alone = store.read(&ids[1..2], None).await.unwrap();
    assert!(matches!(&alone[..], [Err(StoreError::Unavailable(_))]), "the others are there: {alone:?}");
    for master in [0, 2] {
        run(&store, &id_at(&store, master), "2").await.unwrap();
    }
    assert!(store.connected_for().is_some());
    store.now_us().await.unwrap();
    let warnings = store.ping().await.unwrap().warnings.join("\n");
    assert!(warnings.contains(&cluster.masters[1].port().to_string()), "{warnings}");

    // It listens at another one by now.
    assert_eq!(next(&mut replies).await, Notice::Missed);
    let id = id_at(&store, 2);
    let (task, queue) = ("add".into(), "default".into());
    let submission = Submission { id: id.clone(), task, queue, reply_to: Some(client), eta: None };
    store.submit(&[submission]).await.unwrap();
    run(&store, &id, "3").await.unwrap();
    loop {
        match next(&mut replies).await {
            // If it was published while nobody listened, the client looks.
            Notice::Missed => {
                let state = store.read(std::slice::from_ref(&id), None).await.unwrap().remove(0).unwrap();
                if state.is_some_and(|state| state.status == Status::Success) {
                    break;
                }
            }
            notice => {
                assert_eq!(notice, reply(id, "3"));
                break;
            }
        }
    }

    until("long enough at the others", || store.connected_for() >= Some(Duration::from_millis(LEASE_MS))).await;
    cluster.masters[1].start_again().await;
    run_at_last(&store, &id_at(&store, 1)).await;
    // What its workers hold they extend first.
    for id in &lapsed {
        store.plant(id, Some(run_of_w2.clone())).await;
    }
    let by = crate::core::lifecycle::Claimer { lease_ms: LEASE_MS, ..claimer() };
    let claims = store.claim(&by, &lapsed.clone().map(|id| (id, ask()))).await.unwrap();
    assert!(
        matches!(claims[..], [Ok(Claim::Granted { .. }), Ok(Claim::Held { .. }), Ok(Claim::Granted { .. })]),
        "{claims:?}"
    );
}

#[tokio::test]
async fn a_replica_that_takes_over_is_followed() {
    let mut cluster = OwnCluster::start().await;
    let store = connected(&cluster.url()).await;
    let replica = OwnCluster::node().await;
    cluster.meet(&replica).await;
    cluster.until_joined(4).await;
    let master = cluster.masters[1].command("CLUSTER MYID").await.unwrap().as_string().unwrap();
    while replica.command(&format!("CLUSTER REPLICATE {master}")).await.is_err() {}
    while !replica.command("INFO replication").await.unwrap().as_string().unwrap().contains("master_link_status:up") {}
    let id = id_at(&store, 1);
    run(&store, &id, "3").await.unwrap();
    let offset = async |node: &OwnServer, name: &str| {
        let info = node.command("INFO replication").await.unwrap().as_string().unwrap();
        info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    // A replica has what it has acknowledged.
    while offset(&replica, "slave_repl_offset:").await != offset(&cluster.masters[1], "master_repl_offset:").await {}
    cluster.masters[1].stop();
    replica.command("CLUSTER FAILOVER TAKEOVER").await.unwrap();
    run_at_last(&store, &id_at(&store, 1)).await;
    let state = store.read(&[id], None).await.unwrap().remove(0).unwrap();
    assert_eq!(state.unwrap().status, Status::Success, "the replica has it");
}

#[tokio::test]
async fn slots_that_move_are_followed() {
    let cluster = OwnCluster::start().await;
    let store = connected(&cluster.url()).await;
    let (from, to) = (&cluster.masters[0], &cluster.masters[2]);
    let id = id_at(&store, 0);
    let key = store.keys.task(&id);
    run(&store, &id, "3").await.unwrap();
    let slot = redis_keyslot(key.as_bytes());
    let name = async |node: &OwnServer| node.command("CLUSTER MYID").await.unwrap().as_string().unwrap();
    let (from_id, to_id) = (name(from).await, name(to).await);
    to.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await.unwrap();
    from.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await.unwrap();
    from.command(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port())).await.unwrap();
    let ends = async || store.read(std::slice::from_ref(&id), None).await.unwrap().remove(0).unwrap().unwrap().status;
    assert_eq!(ends().await, Status::Success, "the key has moved");
    for node in [to, from, &cluster.masters[1]] {
        node.command(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await.unwrap();
    }
    assert_eq!(ends().await, Status::Success, "the slot has moved");
    // Once the map is read again, nothing is redirected.
    let server = format!("127.0.0.1:{}", to.port());
    let started = Instant::now();
    while store.connections.of(&key).await.unwrap().server() != server {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
