//! A connection to Redis that comes back by itself, and logs when it is lost and when it is back.
//!
//! ```text
//!  Down ──► Up ──── a write is refused ────► Refusing
//!   ▲        ▲◄── a probe may write again ──────│
//!   └────────┴────────── break ─────────────────┘
//! ```
//! fred reconnects after a break that it notices. What it does not notice, a server that accepts and never
//! answers, shows in heartbeats that stay without an answer: then the client is thrown away and built anew.
//!
//! A server that refuses writes counts as away: nothing can be claimed, extended or recorded. When it takes writes again, the
//! time that the connection has been up starts over, so nobody takes over what the others could not extend. In a cluster no key
//! can be probed at every master, so there only the time starts over, with each refusal.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, FredResult, KeysInterface, PubsubInterface},
    types::{
        Expiration, Message, Value,
        config::{Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, Server},
    },
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{address, refusal, rights};
use crate::{restart, store::StoreError};

/// Longest time that a call to Redis takes: 5 s.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two heartbeats of a connection over which nothing else was answered: 5 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time that the answer to a heartbeat may take: 4 s.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);
/// The time after which a connection that cannot be made is logged again, if the reason is the same.
const DOWN_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// A client that has not been connected for longer is built anew, in case it is fred that is stuck: 60 s.
const STUCK_CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two attempts to connect, in ms, to which fred adds 50 to 100 ms.
const RECONNECT_DELAY_MS: u32 = 200;
/// Time between the end of a client and the start of the next one: 1 s.
const NEW_CLIENT_DELAY: Duration = Duration::from_secs(1);
/// Time between two looks whether a server that refused writes takes them again: 250 ms.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Time after which a connection to a server that has become a replica is made anew, because its name or its sentinels may lead
/// to the new master: 5 s.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at what a channel would have said, if the user may not subscribe: 1 s.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Refusals with the same code are logged again after this time: 1 min. At the edge of its memory a server refuses now and then.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What a connection is for.
pub(super) trait Purpose: Send + Sync + 'static {
    /// Its name in the log.
    const NAME: &'static str;
    /// Messages and events that fred keeps until they are looked at.
    const BACKLOG: usize;

    /// A key that may be written to see whether the server takes writes; `None`: nothing is written over this connection.
    fn probe(&self) -> Option<&str> {
        None
    }

    /// A channel to subscribe to after every connect.
    fn channel(&self) -> Option<&str> {
        None
    }

    /// The subscription holds from now on; what was published earlier did not come.
    fn subscribed(&self) {}

    /// The user may not subscribe. That is tried again, and until then messages count as dropped every second.
    fn denied(&self, _error: &str) {}

    /// A message on the channel.
    fn received(&self, _message: Message) {}

    /// Messages were dropped.
    fn lagged(&self) {}

    /// The connection was lost, or an attempt to make it has failed.
    fn lost(&self) {}
}

/// The connection for everything but replies.
pub(super) struct Commands {
    pub(super) probe: String,
}

impl Purpose for Commands {
    const NAME: &'static str = "commands";
    const BACKLOG: usize = 64;

    fn probe(&self) -> Option<&str> {
        Some(&self.probe)
    }
}

/// One connection, for as long as this lives.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    is_in_cluster: bool,
    client: RwLock<Client>,
    health: Mutex<Health>,
    /// What becomes of it, for those that wait.
    link: watch::Sender<Link>,
    /// Changes with every connect and every break. No two connections have the same.
    generation: AtomicU64,
    /// Whether something was answered since the last heartbeat.
    is_answering: AtomicBool,
    /// When refused writes were last logged, and their code.
    refusal_logged: Mutex<Option<(Instant, String)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The first attempt is under way.
    New,
    Up,
    Down,
}

#[derive(Debug)]
enum Health {
    Up(Instant),
    Refusing { since: Instant, is_replica: bool, is_logged: bool },
    Down { since: Instant, error: String, logged: Option<Instant> },
}

impl Connection {
    /// Opens a connection on the current Tokio runtime, and returns at once.
    pub(super) fn open<P: Purpose>(config: &Config, purpose: P) -> Self {
        Self::start(config, Arc::new(purpose), false)
    }

    /// Opens a connection to a node of a cluster.
    pub(super) fn open_node<P: Purpose>(cluster: &Config, node: &Server, purpose: Arc<P>) -> Self {
        Self::start(&address::node(cluster, node), purpose, true)
    }

    fn start<P: Purpose>(config: &Config, purpose: Arc<P>, is_in_cluster: bool) -> Self {
        let hosts = config.server.hosts();
        let server = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let shared = Arc::new(Shared {
            server,
            is_in_cluster,
            client: RwLock::new(build(config, P::BACKLOG)),
            health: Mutex::new(Health::Down {
                since: Instant::now(),
                error: "not connected yet".to_owned(),
                logged: None,
            }),
            link: watch::Sender::new(Link::New),
            generation: AtomicU64::new(next_generation()),
            is_answering: AtomicBool::new(false),
            refusal_logged: Mutex::default(),
        });
        let supervised = Arc::clone(&shared);
        let supervise = move || supervise(Arc::clone(&supervised), Arc::clone(&purpose));
        let supervisor = tokio::spawn(restart::run("redis connection", supervise));
        Self { shared, supervisor }
    }

    /// The client to send a command with; not to be kept.
    pub(super) fn client(&self) -> Client {
        self.shared.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn server(&self) -> &str {
        &self.shared.server
    }

    pub(super) fn host(&self) -> &str {
        self.server().rsplit_once(':').map_or("", |(host, _)| host)
    }

    /// How long the connection has been up without a break or a refused write.
    pub(super) fn connected_for(&self) -> Option<Duration> {
        match &*self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Up(since) => Some(since.elapsed()),
            Health::Refusing { .. } | Health::Down { .. } => None,
        }
    }

    /// Waits for the outcome of the first attempt to connect. An error if there is no connection by then.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        let mut link = self.shared.link.subscribe();
        // Too late is as good as not at all.
        let _ = timeout(COMMAND_TIMEOUT, link.wait_for(|link| *link != Link::New)).await;
        self.away().map_or(Ok(()), Err)
    }

    /// Waits until the connection is lost, or could not be made; returns what that means for a call.
    pub(super) async fn lost(&self) -> StoreError {
        // It cannot be closed: this has its sender.
        let _ = self.shared.link.subscribe().wait_for(|link| *link == Link::Down).await;
        self.away().unwrap_or_else(|| StoreError::Unavailable(format!("{}: disconnected", self.server())))
    }

    /// Why there is no connection, if there is none.
    pub(super) fn away(&self) -> Option<StoreError> {
        match &*self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Down { error, .. } => Some(StoreError::Unavailable(format!("{}: {error}", self.server()))),
            _ => None,
        }
    }

    /// A call was answered, so that no heartbeat is needed.
    pub(super) fn answered(&self) {
        self.shared.is_answering.store(true, Ordering::Relaxed);
    }

    /// The same number as before: no break was noticed in between, and no refused write.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::SeqCst)
    }

    /// What an error of a command means to its caller.
    pub(super) fn error(&self, error: &Error) -> StoreError {
        // States of a server that pass.
        const TRANSIENT: [&str; 7] = ["LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK"];
        let code = refusal::code(error.details());
        if let Some(remedy) = refusal::remedy(code) {
            self.shared.refused(code, error.details(), remedy);
            return StoreError::WritesRefused { remedy, reply: error.details().to_owned() };
        }
        if refusal::is_answer(code) && !TRANSIENT.contains(&code) {
            return StoreError::Refused(error.details().to_owned());
        }
        self.away().unwrap_or_else(|| StoreError::Unavailable(format!("{}: {}", self.server(), plain(error))))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Shared {
    fn up(&self, purpose: &str) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*health, Health::Down { .. }) {
            *health = Health::Up(Instant::now());
            self.link.send_replace(Link::Up);
            tracing::info!(event = "backend_connected", server = self.server, purpose, "connected to redis");
        }
    }

    fn down(&self, purpose: &str, error: String) {
        self.generation.store(next_generation(), Ordering::SeqCst);
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (event, since, logged) = match &*health {
            Health::Up(_) | Health::Refusing { .. } => ("backend_disconnected", now, None),
            // The same again is logged now and then.
            Health::Down { since, error: earlier, logged } => {
                ("backend_reconnecting", *since, logged.filter(|_| *earlier == error))
            }
        };
        let is_recent = logged.is_some_and(|at| now.duration_since(at) < DOWN_LOG_INTERVAL);
        if !is_recent {
            tracing::warn!(event, server = self.server, purpose, error, "not connected to redis");
        }
        let logged = if is_recent { logged } else { Some(now) };
        *health = Health::Down { since, error, logged };
        self.link.send_replace(Link::Down);
    }

    /// A write was refused.
    fn refused(&self, code: &str, reply: &str, remedy: &str) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Health::Up(_) = *health else { return };
        let now = Instant::now();
        self.generation.store(next_generation(), Ordering::SeqCst);
        let mut logged = self.refusal_logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |(at, of): &(Instant, String)| of == code && at.elapsed() < REFUSAL_LOG_INTERVAL;
        let is_news = !logged.as_ref().is_some_and(is_known);
        *health = match self.is_in_cluster {
            true => Health::Up(now),
            false => Health::Refusing { since: now, is_replica: code == refusal::REPLICA, is_logged: is_news },
        };
        if is_news {
            *logged = Some((now, code.to_owned()));
            tracing::error!(
                event = "backend_refuses_writes",
                server = self.server,
                error = reply,
                "redis takes no writes: {remedy}; until then no task starts, and the results of those that run are held"
            );
        }
    }

    /// Since when the server refuses writes, and whether that is because it is a replica.
    fn refusing(&self) -> Option<(Instant, bool)> {
        match *self.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Refusing { since, is_replica, .. } => Some((since, is_replica)),
            _ => None,
        }
    }

    /// The server takes writes again.
    fn takes_writes(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Health::Refusing { since, is_logged, .. } = *health else { return };
        *health = Health::Up(Instant::now());
        if is_logged {
            tracing::info!(event = "backend_takes_writes", server = self.server, after = ?since.elapsed(),
                "redis takes writes again");
        }
    }

    fn is_stuck(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*health, Health::Down { since, .. } if since.elapsed() > STUCK_CLIENT_TIMEOUT)
    }
}

/// Another number than ever before in this process.
fn next_generation() -> u64 {
    static GENERATIONS: AtomicU64 = AtomicU64::new(0);
    GENERATIONS.fetch_add(1, Ordering::SeqCst)
}

fn build(config: &Config, backlog: usize) -> Client {
    let connection = ConnectionConfig {
        connection_timeout: COMMAND_TIMEOUT,
        internal_command_timeout: COMMAND_TIMEOUT,
        // Not for READONLY: a replica refuses writes over the next connection too.
        reconnect_errors: vec![ReconnectError::ClusterDown, ReconnectError::Loading],
        ..ConnectionConfig::default()
    };
    let performance = PerformanceConfig {
        default_command_timeout: COMMAND_TIMEOUT,
        broadcast_channel_capacity: backlog,
        ..PerformanceConfig::default()
    };
    // Attempts without end, about every 250 ms: a worker without a connection reads on for 0.75 s only.
    let policy = ReconnectPolicy::new_constant(0, RECONNECT_DELAY_MS);
    Client::new(config.clone(), Some(performance), Some(connection), Some(policy))
}

/// Aborts fred's task, which would otherwise outlive its last client.
struct Running(JoinHandle<FredResult<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps a working client in place. Ends only when it is dropped.
async fn supervise<P: Purpose>(shared: Arc<Shared>, purpose: Arc<P>) {
    loop {
        let client = shared.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let error = Box::pin(run(&client, &shared, &*purpose)).await;
        shared.down(P::NAME, error);
        purpose.lost();
        let fresh = client.clone_new();
        *shared.client.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        sleep(NEW_CLIENT_DELAY).await;
    }
}

/// Runs one client until it has to be replaced; returns why.
async fn run<P: Purpose>(client: &Client, shared: &Shared, purpose: &P) -> String {
    let mut connects = client.reconnect_rx();
    let mut errors = client.error_rx();
    let mut messages = client.message_rx();
    let mut running = Running(client.connect());
    let heartbeat = heartbeat(client, shared, P::NAME);
    let probe = probe(client, shared, purpose.probe());
    tokio::pin!(heartbeat, probe);
    // When a subscription was denied.
    let mut denied = None;
    let mut poll = interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // In this order, because a break and the reconnect after it may both wait here. The other way
            // round, fred's next attempt reports the break again.
            biased;
            broken = errors.recv() => if let Ok((error, _)) = broken {
                shared.down(P::NAME, plain(&error));
                purpose.lost();
            },
            connected = connects.recv() => if !matches!(connected, Err(RecvError::Closed)) {
                shared.generation.store(next_generation(), Ordering::SeqCst);
                shared.up(P::NAME);
                if let Err(error) = subscribe(client, purpose, &mut denied).await {
                    return format!("cannot subscribe: {error}");
                }
            },
            message = messages.recv() => match message {
                Ok(message) => purpose.received(message),
                Err(_) => purpose.lagged(),
            },
            _ = poll.tick(), if denied.is_some() => {
                purpose.lagged();
                if denied.is_some_and(|at| at.elapsed() >= rights::RETRY_INTERVAL)
                    && let Err(error) = subscribe(client, purpose, &mut denied).await
                {
                    return format!("cannot subscribe: {error}");
                }
            },
            () = &mut heartbeat => return "does not answer".to_owned(),
            never = &mut probe => match never {},
            ended = &mut running.0 => return match ended {
                Ok(Err(error)) => plain(&error),
                _ => "ended".to_owned(),
            },
        }
    }
}

/// Subscribes, and waits until the server has done so: its answers come in order. Notes when that was denied.
async fn subscribe<P: Purpose>(client: &Client, purpose: &P, denied: &mut Option<Instant>) -> FredResult<()> {
    let Some(channel) = purpose.channel() else { return Ok(()) };
    let subscribed = async {
        client.subscribe(channel).await?;
        // fred waits for no answer to a subscription, and takes a refusal for the answer to what was sent next.
        client.ping::<Value>(None).await
    };
    match subscribed.await {
        Err(error) if rights::is_denied(error.details()) => {
            purpose.denied(error.details());
            *denied = Some(Instant::now());
        }
        answer => {
            answer?;
            *denied = None;
            purpose.subscribed();
        }
    }
    Ok(())
}

/// Looks whether a server that refuses writes takes them again.
async fn probe(client: &Client, shared: &Shared, key: Option<&str>) -> Infallible {
    let Some(key) = key else { return std::future::pending().await };
    let mut reconnected = Instant::now();
    loop {
        sleep(PROBE_INTERVAL).await;
        let Some((since, is_replica)) = shared.refusing() else { continue };
        let answer = client.set::<(), _, _>(key, "1", Some(Expiration::PX(1)), None, false).await;
        let code = answer.as_ref().err().map(|error| refusal::code(error.details()));
        match code {
            Some(code) if refusal::remedy(code).is_some() => {
                if is_replica && since.max(reconnected).elapsed() >= REPLICA_TIMEOUT {
                    reconnected = Instant::now();
                    // If it fails, a break is noticed, or it is tried again.
                    let _ = client.force_reconnection().await;
                }
            }
            // A break, which is noticed elsewhere.
            Some(code) if !refusal::is_answer(code) => {}
            // Even if this user may not write this key: what the calls need may be allowed.
            _ => shared.takes_writes(),
        }
    }
}

/// Returns when the server is connected and does not answer.
async fn heartbeat(client: &Client, shared: &Shared, purpose: &str) {
    loop {
        sleep(HEARTBEAT_INTERVAL).await;
        if shared.is_answering.swap(false, Ordering::Relaxed) && client.is_connected() {
            continue;
        }
        match timeout(HEARTBEAT_TIMEOUT, client.ping::<Value>(None)).await {
            Ok(Ok(_)) => shared.up(purpose),
            Ok(Err(error)) if *error.kind() != ErrorKind::Timeout => {}
            _ if client.is_connected() || shared.is_stuck() => return,
            _ => {}
        }
    }
}

/// The error's text. fred quotes an I/O error as `Os { code: 111, kind: .., message: "Connection refused" }`.
fn plain(error: &Error) -> String {
    let quoted = error.details().split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    quoted.map_or_else(|| error.to_string(), |(message, _)| message.to_lowercase())
}
