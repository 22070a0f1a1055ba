//! A connection to Redis that mends itself, and says in the log how it fares.
//!
//! fred reconnects after a break that it notices. What it does not notice, a server that accepts and never
//! answers, shows in heartbeats that stay without an answer: then the client is thrown away and built anew.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, FredResult, PubsubInterface},
    types::{
        Message, Value,
        config::{Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy},
    },
};
use tokio::{
    sync::broadcast::error::RecvError,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::store::StoreError;

/// No call to Redis takes longer.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A heartbeat that takes longer was not answered.
const UNRESPONSIVE: Duration = Duration::from_secs(4);
/// A client that has not been connected for so long is built anew, in case it is fred that is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What a connection is for.
pub(super) trait Purpose: Send + Sync + 'static {
    /// Its name in the log.
    const NAME: &'static str;
    /// Messages and events that fred keeps until they are looked at.
    const BACKLOG: usize;

    /// A channel to subscribe to after every connect.
    fn channel(&self) -> Option<&str> {
        None
    }

    /// The subscription holds from now on; what was published earlier did not come.
    fn subscribed(&self) {}

    /// A message on the channel.
    fn received(&self, _message: Message) {}

    /// Messages were dropped.
    fn lagged(&self) {}
}

/// The connection for everything but replies.
pub(super) struct Commands;

impl Purpose for Commands {
    const NAME: &'static str = "commands";
    const BACKLOG: usize = 64;
}

/// One connection (in a cluster: one per node), for as long as this lives.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    client: RwLock<Client>,
    health: Mutex<Health>,
}

#[derive(Debug)]
enum Health {
    Up(Instant),
    Down { since: Instant, error: String },
}

impl Connection {
    /// Opens a connection on the current Tokio runtime, and returns at once.
    pub(super) fn open<P: Purpose>(config: &Config, purpose: P) -> Self {
        let hosts = config.server.hosts();
        let server = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let shared = Arc::new(Shared {
            server,
            client: RwLock::new(build(config, P::BACKLOG)),
            health: Mutex::new(Health::Down { since: Instant::now(), error: "not connected yet".to_owned() }),
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&shared), purpose));
        Self { shared, supervisor }
    }

    /// The client to send a command with; not to be kept.
    pub(super) fn client(&self) -> Client {
        self.shared.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn server(&self) -> &str {
        &self.shared.server
    }

    /// How long the connection has been up without a break.
    pub(super) fn connected_for(&self) -> Option<Duration> {
        match &*self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Up(since) => Some(since.elapsed()),
            Health::Down { .. } => None,
        }
    }

    /// What an error of a command means to its caller.
    pub(super) fn error(&self, error: &Error) -> StoreError {
        // States of a server that pass.
        const TRANSIENT: [&str; 8] =
            ["LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "READONLY", "MOVED", "ASK"];
        let code = error.details().split_ascii_whitespace().next().unwrap_or_default();
        let is_answer = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_answer && !TRANSIENT.contains(&code) {
            return StoreError::Refused(error.details().to_owned());
        }
        match &*self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Down { error: reason, .. } => StoreError::Unavailable(format!("{}: {reason}", self.server())),
            Health::Up(_) => StoreError::Unavailable(format!("{}: {}", self.server(), plain(error))),
        }
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
            tracing::info!(event = "backend_connected", server = self.server, purpose, "redis is there");
        }
    }

    fn down(&self, purpose: &str, error: String) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let (event, since) = match *health {
            Health::Up(_) => ("backend_disconnected", Instant::now()),
            Health::Down { since, .. } => ("backend_reconnecting", since),
        };
        tracing::warn!(event, server = self.server, purpose, error, "redis is not there");
        *health = Health::Down { since, error };
    }

    fn is_stuck(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*health, Health::Down { since, .. } if since.elapsed() > STUCK)
    }
}

fn build(config: &Config, backlog: usize) -> Client {
    let connection = ConnectionConfig {
        connection_timeout: COMMAND_TIMEOUT,
        internal_command_timeout: COMMAND_TIMEOUT,
        ..ConnectionConfig::default()
    };
    let performance = PerformanceConfig {
        default_command_timeout: COMMAND_TIMEOUT,
        broadcast_channel_capacity: backlog,
        ..PerformanceConfig::default()
    };
    // Attempts without end, after 10 ms, 20 ms, and so on up to 5 s.
    let policy = ReconnectPolicy::new_exponential(0, 10, 5_000, 2);
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
async fn supervise<P: Purpose>(shared: Arc<Shared>, purpose: P) {
    loop {
        let client = shared.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let error = run(&client, &shared, &purpose).await;
        shared.down(P::NAME, error);
        let fresh = client.clone_new();
        *shared.client.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        sleep(Duration::from_secs(1)).await;
    }
}

/// Runs one client until it has to be replaced; tells why.
async fn run<P: Purpose>(client: &Client, shared: &Shared, purpose: &P) -> String {
    let mut connects = client.reconnect_rx();
    let mut errors = client.error_rx();
    let mut messages = client.message_rx();
    let mut running = Running(client.connect());
    let heartbeat = heartbeat(client, shared, P::NAME);
    tokio::pin!(heartbeat);
    loop {
        tokio::select! {
            // In this order, because a break and the reconnect after it may both wait here. The other way
            // round, fred's next attempt tells of the break again.
            biased;
            broken = errors.recv() => if let Ok((error, _)) = broken {
                shared.down(P::NAME, plain(&error));
            },
            connected = connects.recv() => if !matches!(connected, Err(RecvError::Closed)) {
                shared.up(P::NAME);
                if let Some(channel) = purpose.channel() {
                    match subscribe(client, channel).await {
                        Ok(()) => purpose.subscribed(),
                        Err(error) => return format!("cannot subscribe: {error}"),
                    }
                }
            },
            message = messages.recv() => match message {
                Ok(message) => purpose.received(message),
                Err(_) => purpose.lagged(),
            },
            () = &mut heartbeat => return "does not answer".to_owned(),
            ended = &mut running.0 => return match ended {
                Ok(Err(error)) => plain(&error),
                _ => "ended".to_owned(),
            },
        }
    }
}

/// Subscribes, and waits until the server has done so: its answers come in order.
async fn subscribe(client: &Client, channel: &str) -> FredResult<()> {
    client.subscribe(channel).await?;
    client.ping::<Value>(None).await.map(drop)
}

/// Returns when the server is connected and does not answer.
async fn heartbeat(client: &Client, shared: &Shared, purpose: &str) {
    loop {
        sleep(HEARTBEAT).await;
        match timeout(UNRESPONSIVE, client.ping::<Value>(None)).await {
            Ok(Ok(_)) => shared.up(purpose),
            Ok(Err(error)) if *error.kind() != ErrorKind::Timeout => {}
            _ if client.is_connected() || shared.is_stuck() => return,
            _ => {}
        }
    }
}

/// Reads an address.
pub(super) fn parse(url: &str) -> Result<Config, StoreError> {
    let refuse = |detail: &str| StoreError::Address { url: without_password(url), detail: detail.to_owned() };
    let scheme = url.split_once("://").map(|(scheme, _)| scheme).ok_or_else(|| refuse("it has no scheme"))?;
    let encrypted = match scheme {
        "redis" | "redis-cluster" | "redis-sentinel" => false,
        "rediss" | "rediss-cluster" | "rediss-sentinel" => true,
        _ => return Err(refuse("its scheme is not redis, rediss, or one of them with -cluster or -sentinel")),
    };
    if encrypted && !cfg!(feature = "tls") {
        return Err(refuse("rediss needs the feature `tls` of yadtq"));
    }
    let config = Config::from_url(url).map_err(|error| refuse(error.details()))?;
    Ok(Config { fail_fast: false, ..config })
}

/// The error's text. fred quotes an I/O error as `Os { code: 111, kind: .., message: "Connection refused" }`.
fn plain(error: &Error) -> String {
    let quoted = error.details().split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    quoted.map_or_else(|| error.to_string(), |(message, _)| message.to_lowercase())
}

fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://***{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
