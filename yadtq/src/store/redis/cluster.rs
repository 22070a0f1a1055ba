//! The connections to a cluster: one to each master, so that one that is away stops only the calls for its own slots.
//!
//! ```text
//!  call ── slot of its key ──► slot map ──► connection to the master ──► answer
//!                                 ▲                     │ MOVED, lost, every second while one is away
//!                                 └── CLUSTER SLOTS ◄───┘ of whichever node answers
//! ```
//! fred's own client for clusters connects to all masters or to none, and sends nothing while it tries. So here each master has a
//! client of its own. A call for a master that is away fails at once: it is sent again by whoever made it, and must not hold up
//! the others of its batch. A master that was replaced by its replica, or whose slots have moved, is found by the slot map.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use fred::{
    interfaces::ClientLike,
    types::{
        CustomCommand, Value,
        config::{Config, Server},
    },
    util::redis_keyslot,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    connection::{COMMAND_TIMEOUT, Connection, Purpose},
    slot_map::SlotMap,
};
use crate::{restart, store::StoreError};

/// Time between two looks at the slots while everything is well: 30 s. What moves meanwhile is noticed by the first call for it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// The same while a master is away, or a slot has none: 1 s.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks at the slots: 50 ms.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time for a node to say who has which slots: 1 s. Then another one is asked.
const SLOTS_TIMEOUT: Duration = Duration::from_secs(1);

/// A cluster, for as long as this lives.
pub(super) struct Cluster {
    pub(super) masters: Arc<Masters>,
    refresher: JoinHandle<()>,
}

/// The masters, and which of them has which slots.
pub(super) struct Masters {
    /// User, password, TLS, and the nodes to begin with.
    config: Config,
    nodes: RwLock<Nodes>,
    /// Whether the slots are known.
    is_known: watch::Sender<bool>,
    /// Notified when the slots should be looked at.
    refresh: Arc<Notify>,
}

#[derive(Default)]
struct Nodes {
    slots: SlotMap,
    connections: HashMap<Server, Arc<Connection>>,
}

/// The connection for everything but replies, to one master.
struct Master {
    refresh: Arc<Notify>,
}

impl Purpose for Master {
    const NAME: &'static str = "commands";
    const BACKLOG: usize = 64;

    fn lost(&self) {
        self.refresh.notify_one();
    }
}

impl Cluster {
    /// Opens connections on the current Tokio runtime, and returns at once.
    pub(super) fn open(config: &Config) -> Self {
        let masters = Arc::new(Masters {
            config: config.clone(),
            nodes: RwLock::default(),
            is_known: watch::Sender::new(false),
            refresh: Arc::default(),
        });
        let refreshed = Arc::clone(&masters);
        let refresh = move || refresh(Arc::clone(&refreshed));
        let refresher = tokio::spawn(restart::run("redis cluster", refresh));
        Self { masters, refresher }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl Masters {
    /// The connection to the master that has this key. Waits for the slots, if they are not known yet, but for no master that is
    /// away.
    pub(super) async fn of(&self, key: &[u8]) -> Result<Arc<Connection>, StoreError> {
        self.known().await?;
        let slot = redis_keyslot(key);
        self.has(slot).ok_or_else(|| {
            self.refresh.notify_one();
            StoreError::Unavailable(format!("no master of the cluster has slot {slot}"))
        })
    }

    /// The connection to the master that has this slot, as far as is known.
    pub(super) fn has(&self, slot: u16) -> Option<Arc<Connection>> {
        let nodes = self.read();
        nodes.slots.find(slot).and_then(|server| nodes.connections.get(server)).cloned()
    }

    /// The connection to some master: the one that has been up longest.
    pub(super) async fn any(&self) -> Result<Arc<Connection>, StoreError> {
        self.known().await?;
        let all = self.by_age();
        // All are new: one of them may be ready in a moment.
        let first = all.first().cloned();
        first.ok_or_else(|| StoreError::Unavailable("the cluster has no master".to_owned()))
    }

    /// A connection to this node, which has said, or of which another one has said, that it has a slot.
    pub(super) fn at(&self, server: &Server) -> Arc<Connection> {
        Arc::clone(self.write().connection(server, &self.config, &self.refresh))
    }

    /// Calls are answered by nodes that do not have the slot.
    pub(super) fn look_again(&self) {
        self.refresh.notify_one();
    }

    /// How long the connection that has been up longest has been so.
    pub(super) fn connected_for(&self) -> Option<Duration> {
        self.read().connections.values().filter_map(|connection| connection.connected_for()).max()
    }

    /// Why masters are away, those that are.
    pub(super) fn away(&self) -> Vec<StoreError> {
        self.read().connections.values().filter_map(|connection| connection.away()).collect()
    }

    /// How to connect.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// A master to subscribe at: the one that has this slot, if it is there; else another one. Waits for the first attempt to connect
    /// to it, which may be under way while others are already up: the subscription would stay with those.
    pub(super) async fn subscribe_at(&self, slot: u16) -> Option<Server> {
        self.known().await.ok()?;
        if let Some(home) = self.has(slot) {
            // Without it there are the others.
            let _ = home.ready().await;
        }
        let nodes = self.read();
        let is_up = |server: &&Server| nodes.connections.get(*server).is_some_and(|node| node.away().is_none());
        nodes.slots.find(slot).filter(is_up).or_else(|| nodes.slots.masters().find(is_up)).cloned()
    }

    async fn known(&self) -> Result<(), StoreError> {
        if *self.is_known.borrow() {
            return Ok(());
        }
        let mut is_known = self.is_known.subscribe();
        let known = timeout(COMMAND_TIMEOUT, is_known.wait_for(|is_known| *is_known)).await;
        if known.is_ok() {
            return Ok(());
        }
        let away = self.away().into_iter().next();
        Err(away
            .unwrap_or_else(|| StoreError::Unavailable("no node of the cluster says who has which slots".to_owned())))
    }

    /// All connections, those that have been up longest first.
    pub(super) fn by_age(&self) -> Vec<Arc<Connection>> {
        let mut all: Vec<_> = self.read().connections.values().cloned().collect();
        all.sort_by_key(|connection| std::cmp::Reverse(connection.connected_for()));
        all
    }

    /// Asks one node after the other who has which slots, those that have been up longest first: a node that was away may not know
    /// yet. `true`: everything is as it should be.
    async fn look(&self) -> bool {
        if self.connected_for().is_none() {
            let mut nodes = self.write();
            for server in self.config.server.hosts() {
                nodes.connection(&server, &self.config, &self.refresh);
            }
        }
        for connection in self.by_age() {
            if let Some(slots) = ask(&connection).await {
                self.learn(slots);
                let nodes = self.read();
                let are_up = nodes.connections.values().all(|connection| connection.away().is_none());
                return nodes.slots.is_complete() && are_up;
            }
        }
        false
    }

    /// Opens connections to new masters, and drops those to nodes that are none any more.
    fn learn(&self, slots: SlotMap) {
        let mut nodes = self.write();
        let before = std::mem::take(&mut nodes.connections);
        nodes.slots = slots;
        let masters: Vec<Server> = nodes.slots.masters().cloned().collect();
        nodes.connections = before.into_iter().filter(|(server, _)| masters.contains(server)).collect();
        for server in &masters {
            nodes.connection(server, &self.config, &self.refresh);
        }
        drop(nodes);
        self.is_known.send_replace(true);
    }

    fn read(&self) -> RwLockReadGuard<'_, Nodes> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nodes {
    fn connection(&mut self, server: &Server, config: &Config, refresh: &Arc<Notify>) -> &Arc<Connection> {
        self.connections.entry(server.clone()).or_insert_with(|| {
            let purpose = Arc::new(Master { refresh: Arc::clone(refresh) });
            Arc::new(Connection::open_node(config, server, purpose))
        })
    }
}

async fn ask(connection: &Connection) -> Option<SlotMap> {
    let slots = async {
        connection.ready().await.ok()?;
        let command = CustomCommand::new_static("CLUSTER", None, false);
        connection.client().custom::<Value, _>(command, vec!["SLOTS"]).await.ok()
    };
    let answer = timeout(SLOTS_TIMEOUT, slots).await.ok().flatten()?;
    SlotMap::read(answer, connection.host())
}

/// Keeps the slot map up to date.
async fn refresh(masters: Arc<Masters>) {
    loop {
        let wait = if masters.look().await { REFRESH_INTERVAL } else { SEARCH_INTERVAL };
        sleep(SHORTEST_INTERVAL).await;
        // Early is fine.
        let _ = timeout(wait, masters.refresh.notified()).await;
    }
}
