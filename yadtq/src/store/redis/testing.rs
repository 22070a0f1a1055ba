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
    interfaces::{ClientLike, HashesInterface, KeysInterface},
    types::{ClusterHash, CustomCommand, Expiration, config::Config},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::RedisStore;
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
    let store = RedisStore::connect(url, &fresh_namespace()).unwrap();
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

#[async_trait]
impl Subject for RedisStore {
    async fn plant(&self, id: &TaskId, state: Option<TaskState>) {
        let (client, key) = (self.connection.client(), self.keys.task(id));
        client.del::<(), _>(&key).await.unwrap();
        if let Some(state) = state {
            client.hset::<(), _, _>(&key, fields(&state)).await.unwrap();
            client.pexpire::<(), _>(&key, i64::try_from(ttl::WAITING).unwrap(), None).await.unwrap();
        }
    }

    async fn without_ttl(&self) -> Vec<String> {
        let client = self.connection.client();
        let command = CustomCommand::new_static("KEYS", ClusterHash::Random, false);
        // Not every user of the tests may ask.
        let keys: Vec<String> =
            client.custom(command, vec![format!("*{}*", self.keys.namespace())]).await.unwrap_or_default();
        let mut kept = Vec::new();
        for key in keys {
            if client.pttl::<i64, _>(&key).await.unwrap() == -1 {
                kept.push(key);
            }
        }
        kept
    }

    fn sees_subscriptions(&self) -> bool {
        !self.is_clustered
    }

    async fn ttl_ms(&self, id: &TaskId) -> u64 {
        self.connection.client().pttl(self.keys.task(id)).await.unwrap()
    }

    async fn spoil(&self, id: &TaskId) -> bool {
        let expire = Some(Expiration::EX(60));
        self.connection.client().set::<(), _, _>(self.keys.task(id), "3", expire, None, false).await.unwrap();
        true
    }

    async fn forget_owners(&self, topic: &str) {
        self.connection.client().del::<(), _>(self.owners_keys(topic)).await.unwrap();
    }

    async fn spoil_owners(&self, topic: &str) -> bool {
        let (key, expire) = (self.keys.owners(topic), Some(Expiration::EX(60)));
        self.connection.client().set::<(), _, _>(key, "3", expire, None, false).await.unwrap();
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

/// A store on a cluster: one node that has every slot, and is as strict about them as many. The tests that run
/// at the same time share it, because it takes 2 s to be ready.
pub(in crate::store) async fn cluster_for_test() -> OnOwnServer {
    static SHARED: Mutex<Weak<OwnServer>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    let server = match shared.upgrade() {
        Some(server) => server,
        None => Arc::new(start_cluster().await),
    };
    *shared = Arc::downgrade(&server);
    drop(shared);
    let store = connected(&server.url().replace("redis://", "redis-cluster://")).await;
    OnOwnServer { store, _server: server }
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
    let store = RedisStore::connect(&url, &namespace).unwrap();
    until("connected", || store.connected_for().is_some()).await;
    OnOwnServer { store, _server: server }
}

async fn start_cluster() -> OwnServer {
    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "127.0.0.1"];
    let server = OwnServer::with(&options).await;
    let client = Client::new(Config::from_url(&server.url()).unwrap(), None, None, None);
    let running = client.init().await.unwrap();
    let cluster = async |arguments: &[&str]| {
        let command = CustomCommand::new_static("CLUSTER", None, false);
        client.custom::<String, _>(command, arguments.to_vec()).await.unwrap()
    };
    cluster(&["ADDSLOTSRANGE", "0", "16383"]).await;
    while !cluster(&["INFO"]).await.contains("cluster_state:ok") {
        sleep(Duration::from_millis(20)).await;
    }
    running.abort();
    server
}

/// A store, and the server that ends with it.
pub(in crate::store) struct OnOwnServer {
    store: Arc<RedisStore>,
    _server: Arc<OwnServer>,
}

impl Deref for OnOwnServer {
    type Target = RedisStore;

    fn deref(&self) -> &RedisStore {
        &self.store
    }
}

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

    async fn with(options: &[&str]) -> Self {
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
