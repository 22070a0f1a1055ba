//! Stores on a real Redis for tests, with a way to their insides.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    ops::Deref,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use fred::{
    clients::Client,
    interfaces::{ClientLike, FredResult, HashesInterface, KeysInterface},
    types::{CustomCommand, Expiration, Value, config::Config},
    util::redis_keyslot,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{RedisStore, TlsSettings, connections::Connections};
use crate::{
    core::{
        lifecycle::{FollowUp, TaskState},
        names::{Namespace, TaskId},
    },
    store::{Store, conformance::Subject, ttl},
};

/// A store on the server that the tests share, in a namespace of its own.
pub(in crate::store) async fn redis_for_test() -> Arc<RedisStore> {
    let url = std::env::var("YADTQ_REDIS").expect("YADTQ_REDIS names the test's redis: run `cargo xtask test`");
    connected(&url).await
}

/// A store in a fresh namespace, once it is connected.
pub(super) async fn connected(url: &str) -> Arc<RedisStore> {
    let store = RedisStore::connect(url, &TlsSettings::default(), &fresh_namespace()).unwrap();
    until("connected", || store.connected_for().is_some()).await;
    store
}

pub(super) fn fresh_namespace() -> Namespace {
    format!("test-{}", TaskId::new()).parse().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for what no event reports.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let poll = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), poll).await.unwrap_or_else(|_| panic!("not {what} within 20 s"));
}

impl RedisStore {
    /// A client of any server.
    pub(super) async fn client(&self) -> Client {
        self.connections.any().await.unwrap().client()
    }

    /// A client of each server.
    fn clients(&self) -> Vec<Client> {
        let all = match &self.connections {
            Connections::One(connection) => vec![Arc::clone(connection)],
            Connections::Cluster(cluster) => cluster.masters.by_age(),
        };
        all.iter().map(|connection| connection.client()).collect()
    }

    /// A client of the server that has this key.
    pub(super) async fn client_of(&self, key: &str) -> Client {
        self.connections.of(key).await.unwrap().client()
    }
}

#[async_trait]
impl Subject for RedisStore {
    async fn plant(&self, id: &TaskId, state: Option<TaskState>) {
        let key = self.keys.task(id);
        let client = self.client_of(&key).await;
        client.del::<(), _>(&key).await.unwrap();
        if let Some(state) = state {
            client.hset::<(), _, _>(&key, fields(&state)).await.unwrap();
            client.pexpire::<(), _>(&key, i64::try_from(ttl::WAITING).unwrap(), None).await.unwrap();
        }
    }

    async fn without_ttl(&self) -> Vec<String> {
        let pattern = format!("*{}*", self.keys.namespace());
        let mut kept = Vec::new();
        for client in self.clients() {
            let command = CustomCommand::new_static("KEYS", None, false);
            // Not every user of the tests may ask.
            let keys: Vec<String> = client.custom(command, vec![&pattern]).await.unwrap_or_default();
            for key in keys {
                if client.pttl::<i64, _>(&key).await.unwrap() == -1 {
                    kept.push(key);
                }
            }
        }
        kept
    }

    fn sees_subscriptions(&self) -> bool {
        !self.is_clustered
    }

    async fn ttl_ms(&self, id: &TaskId) -> u64 {
        let key = self.keys.task(id);
        self.client_of(&key).await.pttl(key).await.unwrap()
    }

    async fn spoil(&self, id: &TaskId) -> bool {
        let (key, expire) = (self.keys.task(id), Some(Expiration::EX(60)));
        self.client_of(&key).await.set::<(), _, _>(key, "3", expire, None, false).await.unwrap();
        true
    }

    async fn forget_owners(&self, topic: &str) {
        let client = self.client_of(&self.keys.owners(topic)).await;
        client.del::<(), _>(self.owners_keys(topic)).await.unwrap();
    }

    async fn spoil_owners(&self, topic: &str) -> bool {
        let (key, expire) = (self.keys.owners(topic), Some(Expiration::EX(60)));
        self.client_of(&key).await.set::<(), _, _>(key, "3", expire, None, false).await.unwrap();
        true
    }
}

/// Everything that a state says, even where that is the default.
fn fields(state: &TaskState) -> Vec<(&'static str, String)> {
    let TaskState { status, seq, attempt, token, deliveries, worker, nonce, lease_until, revoke, follow_up, .. } =
        state;
    let mut fields = vec![
        ("status", status.to_string()),
        ("seq", seq.to_string()),
        ("attempt", attempt.to_string()),
        ("token", token.to_string()),
        ("deliveries", deliveries.to_string()),
        ("nonce", nonce.to_string()),
        ("lease-until", lease_until.to_string()),
        ("task", state.task.to_string()),
        ("queue", state.queue.to_string()),
    ];
    fields.extend(worker.as_ref().map(|worker| ("worker", worker.to_string())));
    fields.extend(revoke.then(|| ("revoke", "1".to_owned())));
    fields.extend(follow_up.map(|follow_up| ("hand-on", format_follow_up(follow_up))));
    fields.extend(state.carried.then(|| ("carried", "1".to_owned())));
    fields.extend(state.result.as_ref().map(|result| ("result", result.to_string())));
    fields.extend(state.error.as_ref().map(|error| ("error", error.to_string())));
    fields.extend(state.eta.map(|eta| ("eta", eta.to_string())));
    if let Some(progress) = &state.progress {
        fields.push(("progress", progress.value.to_string()));
        fields.push(("progress-number", progress.number.to_string()));
    }
    let times = [("queued-at", state.queued_at), ("started-at", state.started_at), ("finished-at", state.finished_at)];
    fields.extend(times.into_iter().filter_map(|(name, time)| Some((name, time?.to_string()))));
    fields
}

/// A follow-up as the hash writes it.
fn format_follow_up(follow_up: FollowUp) -> String {
    match follow_up {
        FollowUp::Dead => "dead".to_owned(),
        FollowUp::Stay => "stay".to_owned(),
        FollowUp::Next { attempt, due } => format!("next:{attempt}:{due}"),
    }
}

/// A store on a cluster of three masters. The tests that run at the same time share it, because it takes 2 s to be ready.
pub(in crate::store) async fn cluster_for_test() -> OnOwnServer {
    static SHARED: Mutex<Weak<OwnCluster>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    let cluster = match shared.upgrade() {
        Some(cluster) => cluster,
        None => Arc::new(OwnCluster::start().await),
    };
    *shared = Arc::downgrade(&cluster);
    drop(shared);
    let store = connected(&cluster.url()).await;
    // The suite has no time to wait for a lease.
    store.trusts_new_masters.store(true, std::sync::atomic::Ordering::Relaxed);
    OnOwnServer { store, _server: cluster }
}

/// A store as a user that has the rights in the guide, but for channels, and that of the tests to look at TTLs.
pub(in crate::store) async fn restricted_for_test() -> OnOwnServer {
    static SHARED: Mutex<Weak<OwnServer>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    let server = match shared.upgrade() {
        Some(server) => server,
        None => Arc::new(OwnServer::start().await),
    };
    *shared = Arc::downgrade(&server);
    drop(shared);
    let namespace = fresh_namespace();
    let url = server.add_user(&namespace, |right| !right.starts_with('&')).await;
    let store = RedisStore::connect(&url, &TlsSettings::default(), &namespace).unwrap();
    until("connected", || store.connected_for().is_some()).await;
    OnOwnServer { store, _server: server }
}

/// A store, and the server that ends with it.
pub(in crate::store) struct OnOwnServer {
    store: Arc<RedisStore>,
    _server: Arc<dyn Send + Sync>,
}

impl Deref for OnOwnServer {
    type Target = RedisStore;

    fn deref(&self) -> &RedisStore {
        &self.store
    }
}

/// A cluster of the test's own: three masters without replicas.
pub(super) struct OwnCluster {
    pub(super) masters: Vec<OwnServer>,
}

impl OwnCluster {
    pub(super) async fn start() -> Self {
        let mut masters = Vec::new();
        for _ in 0..3 {
            masters.push(Self::node().await);
        }
        let cluster = Self { masters };
        for (at, master) in (0..).zip(&cluster.masters) {
            let range = (at * SLOTS / 3, (at + 1) * SLOTS / 3 - 1);
            master.command(&format!("CLUSTER ADDSLOTSRANGE {} {}", range.0, range.1)).await.unwrap();
            // Their epochs differ from the start, so nothing has to be agreed on.
            master.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1)).await.unwrap();
            cluster.meet(master).await;
        }
        cluster.until_joined(3).await;
        cluster
    }

    /// A node that belongs to no cluster yet.
    pub(super) async fn node() -> OwnServer {
        let bus = free_port().to_string();
        OwnServer::with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-announce-ip",
            "127.0.0.1",
            "--cluster-node-timeout",
            "3000",
            "--cluster-require-full-coverage",
            "no",
        ])
        .await
    }

    /// Makes a node known to the others.
    pub(super) async fn meet(&self, node: &OwnServer) {
        let bus = node.options.iter().skip_while(|option| *option != "--cluster-port").nth(1).unwrap();
        self.masters[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port)).await.unwrap();
    }

    /// Waits until each master knows all slots, and is connected to so many nodes: until then messages are lost.
    pub(super) async fn until_joined(&self, count: usize) {
        for master in &self.masters {
            let says = async |what: &str| master.command(what).await.unwrap().as_string().unwrap();
            let is_joined = async || {
                let info = says("CLUSTER INFO").await;
                let nodes = says("CLUSTER NODES").await;
                ["cluster_state:ok", "cluster_slots_assigned:16384"].iter().all(|line| info.contains(line))
                    && nodes.matches(" connected").count() == count
                    && !nodes.contains("handshake")
            };
            while !is_joined().await {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub(super) fn url(&self) -> String {
        let nodes: Vec<_> = self.masters.iter().map(|master| format!("127.0.0.1:{}", master.port)).collect();
        format!("redis-cluster://{}?node={}&node={}", nodes[0], nodes[1], nodes[2])
    }
}

/// Which master has this key, in a cluster that is as it was made.
pub(super) fn master_of(key: &str) -> usize {
    let slot = u32::from(redis_keyslot(key.as_bytes()));
    (0..3).position(|at| slot < (at + 1) * SLOTS / 3).unwrap()
}

/// Slots of a cluster.
const SLOTS: u32 = 16_384;

/// A Redis of the test's own, to be stopped and started.
pub(super) struct OwnServer {
    port: u16,
    /// Where it writes what it writes.
    directory: PathBuf,
    options: Vec<String>,
    process: Option<Child>,
}

impl OwnServer {
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(options: &[&str]) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("yadtq-test-{}", TaskId::new()));
        std::fs::create_dir(&directory).unwrap();
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = Self { port, directory, options, process: None };
        server.start_again().await;
        server
    }

    /// Adds a user with those rights of the guide for which `has` is true; returns a URL with its password.
    pub(super) async fn add_user(&self, namespace: &Namespace, has: impl Fn(&str) -> bool) -> String {
        let guide = include_str!("../../guide/operations.md");
        let rights = guide.split("ACL SETUSER worker ").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let rights = rights.replace("yadtq:", &format!("{namespace}:"));
        let user = format!("user-{}", TaskId::new());
        let rights = rights.split_whitespace().filter(|right| has(right)).chain(["+pttl"]);
        let arguments: Vec<_> = ["SETUSER", &user].into_iter().chain(rights).map(str::to_owned).collect();
        let client = Client::new(Config::from_url(&self.url()).unwrap(), None, None, None);
        let running = client.init().await.unwrap();
        client.custom::<(), _>(CustomCommand::new_static("ACL", None, false), arguments).await.unwrap();
        running.abort();
        self.url().replace("redis://", &format!("redis://{user}:password@"))
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Sends one command.
    pub(super) async fn command(&self, words: &str) -> FredResult<Value> {
        let client = Client::new(Config::from_url(&self.url()).unwrap(), None, None, None);
        let running = client.init().await.unwrap();
        let mut words = words.split(' ').map(str::to_owned);
        let command = CustomCommand::new(words.next().unwrap(), None, false);
        let answer = client.custom(command, words.collect::<Vec<_>>()).await;
        running.abort();
        answer
    }

    /// Sends its process a signal.
    pub(super) fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &process]).status().unwrap().success());
    }

    /// Kills it; its memory is lost.
    pub(super) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(super) async fn start_again(&mut self) {
        let binary = std::env::var("YADTQ_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(&binary);
        command.args(["--port", &self.port.to_string(), "--save", "", "--bind", "127.0.0.1"]).args(&self.options);
        command.arg("--dir").arg(&self.directory).stdout(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("cannot start {binary}: {error}"));
        self.process = Some(process);
        until("listening", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()).await;
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop();
        // Left behind, it does no harm.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
