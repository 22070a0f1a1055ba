//! The client: its connections, and the client that `delay` uses.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{background, replies, waiting::Waiting};
use crate::{
    broker::Broker,
    clock::SystemClock,
    config::{self, ClientBuilder, Config, Embedded, Target},
    core::{
        lifecycle::TaskState,
        names::{ClientId, Namespace, TaskId},
    },
    error::Error,
    restart,
    store::{self, Store, ttl},
};

/// Longest time that a new client waits for Redis to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends tasks and finds them again. A client is cheap to clone; all clones share their connections.
///
/// ```
/// #[yadtq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { tokio::runtime::Runtime::new()?.block_on(async {
/// use yadtq::{Client, Worker};
///
/// let client = Client::embedded();
/// let worker = Worker::builder().client(&client).register(add).start().await?;
/// let handle = add.call(1, 2).send(&client).await?;
/// assert_eq!(handle.await?, 3);
/// worker.stop().await?;
/// # Ok(()) }) }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) store: Arc<dyn Store>,
    pub(super) id: ClientId,
    pub(super) waiting: Arc<Waiting>,
    _replies: DropGuard,
}

static INSTALLED: OnceLock<Client> = OnceLock::new();

tokio::task_local! {
    /// The client of this future or blocking task: of the worker that runs it, or of a [`Client::scope`].
    static SCOPED: Client;
}

impl Client {
    /// A client for the servers that `YADTQ_KAFKA` (default `localhost:9092`), `YADTQ_REDIS` (default
    /// `redis://localhost:6379`), `YADTQ_NAMESPACE` (default `yadtq`) and `YADTQ_KAFKA_CONF` name.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), yadtq::Error> {
    /// yadtq::Client::from_env().await?.install()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The same as those of [`ClientBuilder::build`].
    pub async fn from_env() -> Result<Self, Error> {
        Self::builder().build().await
    }

    /// Starts a client with other settings; see [`ClientBuilder`].
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client with a new Kafka and a new Redis in this process's memory, for a first try and for tests. They behave as the
    /// real servers do, and live as long as a client or worker uses them.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let client = yadtq::Client::embedded();
    /// assert!(client.admin().workers().await.unwrap().is_empty());
    /// # });
    /// ```
    ///
    /// # Panics
    /// The system cannot start another thread.
    #[must_use]
    pub fn embedded() -> Self {
        let (clock, namespace) = (SystemClock::shared(), Namespace::default());
        Self::open(Config {
            target: Target::Embedded(Embedded::new(&namespace, Arc::clone(&clock))),
            namespace,
            max_record_bytes: 900 * 1_024,
            clock,
        })
        .expect("a thread can be started")
    }

    async fn connect(config: Config) -> Result<Self, Error> {
        let client = Self::open(config)?;
        // The client works in either case; it only waits so that the first tasks can be recorded as queued.
        let _ = timeout(CONNECT_TIMEOUT, client.inner.store.now_us()).await;
        Ok(client)
    }

    pub(crate) fn open(config: Config) -> Result<Self, Error> {
        let runtime = background::runtime()?;
        let _guard = runtime.enter();
        let (broker, store) = (config.open_broker()?, config.open_store()?);
        let id: ClientId = Uuid::now_v7().to_string().into();
        let (waiting, stop) = (Arc::new(Waiting::default()), CancellationToken::new());
        let (of_replies, client, handles, stopped) =
            (Arc::clone(&store), Arc::clone(&id), Arc::clone(&waiting), stop.clone());
        runtime.spawn(restart::run("replies", move || {
            replies::run(Arc::clone(&of_replies), Arc::clone(&client), Arc::clone(&handles), stopped.clone())
        }));
        let inner = Inner { config, broker, store, id, waiting, _replies: stop.drop_guard() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Installs this client as the one that `delay` uses in this process.
    ///
    /// # Errors
    /// [`Error::AlreadyInstalled`]: a client is already installed. An earlier `delay` may have installed one from the
    /// environment.
    pub fn install(&self) -> Result<(), Error> {
        INSTALLED.set(self.clone()).map_err(|_| Error::AlreadyInstalled)
    }

    /// The current client: inside a [`scope`](Self::scope) or a task that of the scope or the worker, else the installed client,
    /// else a client that is made from the environment and installed. A future that a task spawns does not count as inside the
    /// task: clone the client into it.
    ///
    /// # Errors
    /// - [`Error::NoClient`]: no client is installed, and `YADTQ_KAFKA` is not set. A program that was not configured should not
    ///   send its tasks to whatever runs on its machine.
    /// - [`Error::Config`]: a setting in the environment is wrong.
    pub async fn current() -> Result<Self, Error> {
        match Self::chosen() {
            Some(client) => Ok(client),
            None if config::names_kafka() => Self::current_or_default().await,
            None => Err(Error::NoClient),
        }
    }

    /// The same, with the servers at their default addresses if the environment names none.
    pub(crate) async fn current_or_default() -> Result<Self, Error> {
        if let Some(client) = Self::chosen() {
            return Ok(client);
        }
        let client = Self::from_env().await?;
        Ok(INSTALLED.get_or_init(|| client).clone())
    }

    /// The client that somebody has chosen for this future or process.
    fn chosen() -> Option<Self> {
        SCOPED.try_with(Clone::clone).ok().or_else(|| INSTALLED.get().cloned())
    }

    /// Runs a future with this client as the current one, which `delay` uses: for tests that run side by side, and for programs
    /// with several clients. Futures that it spawns are not inside.
    ///
    /// ```
    /// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let client = yadtq::Client::embedded();
    /// let handle = client.scope(add.delay(1, 2)).await?;
    /// assert_eq!(handle.status().await?, yadtq::Status::Queued);
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        SCOPED.scope(self.clone(), future)
    }

    /// Runs a blocking task with this client as the current one.
    pub(crate) fn scope_blocking<R>(self, f: impl FnOnce() -> R) -> R {
        SCOPED.sync_scope(self, f)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        &self.inner.broker
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) async fn read(&self, id: &TaskId) -> Result<Option<TaskState>, Error> {
        Ok(store::only(self.inner.store.read(std::slice::from_ref(id), None).await)?)
    }

    /// The error for a task that the store does not know.
    pub(crate) fn missing(&self, id: &TaskId) -> Error {
        let now_ms = self.inner.config.clock.now_ms();
        match id.created_ms() {
            // The end of a task may be kept for no longer than this.
            Some(made) if made + ttl::MARKER < now_ms => Error::ResultExpired { id: id.clone() },
            _ => Error::NotFound { id: id.clone() },
        }
    }
}

impl ClientBuilder {
    /// Checks the settings and makes a client. It waits at most 1 s for Redis, so that the first tasks can be recorded as
    /// queued. A server that cannot be reached is not an error here: the client keeps trying to connect in the background,
    /// and calls that need the server fail after their timeouts.
    ///
    /// # Errors
    /// [`Error::Config`]: a name, URL, number or librdkafka setting is wrong.
    pub async fn build(self) -> Result<Client, Error> {
        Client::connect(self.config()?).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("servers", &self.inner.config.servers())
            .field("namespace", &self.inner.config.namespace.as_str())
            .finish_non_exhaustive()
    }
}
