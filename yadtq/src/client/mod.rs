//! Sends tasks and finds them again.

mod background;
mod ordering;
mod prepare;
mod progress;
mod replies;
mod unique;
mod waiting;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;
use uuid::Uuid;

pub(crate) use self::prepare::check_name;
pub use self::progress::ProgressStream;
pub(crate) use self::waiting::{Settled, Waiter};
use self::{prepare::Prepared, unique::Sending, waiting::Waiting};
use crate::{
    admin::Admin,
    broker::{Broker, BrokerError},
    call::Call,
    clock::SystemClock,
    config::{ClientBuilder, Config, Embedded, Target},
    core::{
        lifecycle::{self, Status, TaskState},
        names::{ClientId, Namespace, TaskId},
        unique::UniqueKey,
    },
    error::Error,
    handle::TaskHandle,
    store::{Store, Submission, ttl},
};

/// Nothing is kept for longer.
pub(crate) const LONGEST_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How long a new client waits for Redis.
const CONNECTING: Duration = Duration::from_secs(1);
/// Tasks per round trip of [`Client::send_many`].
const BATCH: usize = 1_000;

/// Sends tasks and finds them again. Cheap to clone; all clones share their connections.
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
    inner: Arc<Inner>,
}

/// What became of a revocation.
///
/// ```no_run
/// # async fn f(handle: yadtq::TaskHandle<i64>) -> Result<(), yadtq::Error> {
/// use yadtq::Revocation;
///
/// match handle.revoke().await? {
///     Revocation::Revoked => println!("it will not run"),
///     Revocation::Asked { worker } => println!("{worker} is asked to end it"),
///     Revocation::Ended { status } => println!("too late: {status}"),
///     _ => {}
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// It will not run (again).
    Revoked,
    /// It runs, and is asked to end.
    Asked {
        /// The worker that runs it.
        worker: String,
    },
    /// It had ended before, and nothing changed.
    Ended {
        /// How it had ended.
        status: Status,
    },
}

struct Inner {
    config: Config,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    id: ClientId,
    waiting: Arc<Waiting>,
    _replies: DropGuard,
}

static INSTALLED: OnceLock<Client> = OnceLock::new();

tokio::task_local! {
    /// The worker's client, while one of its tasks runs.
    static WORKERS: Client;
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
    /// As [`ClientBuilder::build`].
    pub async fn from_env() -> Result<Self, Error> {
        Self::builder().build().await
    }

    /// A client with settings of its own; see [`ClientBuilder`].
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client with a new pair of servers in this process's memory, which live as long as a client or worker
    /// uses them. The same semantics as the real ones, for a first run and for tests.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let client = yadtq::Client::embedded();
    /// assert!(client.admin().workers().await.unwrap().is_empty());
    /// # });
    /// ```
    ///
    /// # Panics
    /// The system cannot start one more thread.
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

    pub(crate) async fn connect(config: Config) -> Result<Self, Error> {
        let client = Self::open(config)?;
        // Whether or not Redis has answered by then, the client is as good as it gets.
        let _ = timeout(CONNECTING, client.inner.store.now_us()).await;
        Ok(client)
    }

    pub(crate) fn open(config: Config) -> Result<Self, Error> {
        let runtime = background::runtime()?;
        let _guard = runtime.enter();
        let (broker, store) = config.open()?;
        let id: ClientId = Uuid::now_v7().to_string().into();
        let (waiting, attaching) = Waiting::new();
        let stop = CancellationToken::new();
        runtime.spawn(replies::run(Arc::clone(&store), Arc::clone(&id), Arc::clone(&waiting), attaching, stop.clone()));
        let inner = Inner { config, broker, store, id, waiting, _replies: stop.drop_guard() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes this the client that `delay` uses in this process.
    ///
    /// # Errors
    /// [`Error::AlreadyInstalled`]: one is installed, perhaps by an earlier `delay` from the environment.
    pub fn install(&self) -> Result<(), Error> {
        INSTALLED.set(self.clone()).map_err(|_| Error::AlreadyInstalled)
    }

    /// The client at hand: inside a task the worker's, else the installed one, else one made from the
    /// environment and installed. "Inside a task" ends where the task spawns another future: clone the client into
    /// that.
    ///
    /// # Errors
    /// The environment has a wrong setting.
    pub async fn current() -> Result<Self, Error> {
        if let Some(client) = WORKERS.try_with(Clone::clone).ok().or_else(|| INSTALLED.get().cloned()) {
            return Ok(client);
        }
        let client = Self::from_env().await?;
        Ok(INSTALLED.get_or_init(|| client).clone())
    }

    /// Runs a task's future with this client at hand.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        WORKERS.scope(self, future).await
    }

    /// Runs a blocking task with this client at hand.
    pub(crate) fn scope_blocking<R>(self, f: impl FnOnce() -> R) -> R {
        WORKERS.sync_scope(self, f)
    }

    /// Sends many calls, about a thousand per round trip. One answer a call, in the same order; one that fails
    /// does not keep the others from being sent.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// let calls = (0..10_000).map(|i| add.call(i, 1));
    /// for handle in client.send_many(calls).await {
    ///     println!("{}", handle?.id());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn send_many<T, I>(&self, calls: I) -> Vec<Result<TaskHandle<T>, Error>>
    where
        T: DeserializeOwned,
        I: IntoIterator<Item = Call<T>>,
    {
        let mut calls = calls.into_iter();
        let mut answers = Vec::with_capacity(calls.size_hint().0);
        loop {
            let batch: Vec<_> = calls.by_ref().take(BATCH).map(|call| self.prepare(call)).collect();
            if batch.is_empty() {
                return answers;
            }
            answers.extend(self.send_batch(batch).await);
        }
    }

    pub(crate) async fn send<T>(&self, call: Call<T>) -> Result<TaskHandle<T>, Error> {
        let mut answers = self.send_batch(vec![Ok(self.prepare(call)?)]).await;
        answers.pop().expect("one answer a call")
    }

    /// The handle of a task that some process sent.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let sum = client.handle::<i64>("d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn handle<T>(&self, id: TaskId) -> TaskHandle<T> {
        TaskHandle::new(self.clone(), self.inner.waiting.by_id(&id), false)
    }

    /// Ends a task: one that waits will not run, also if no worker and not even Redis has seen it yet; one that runs is
    /// asked to end, see [`Context::cancelled`](crate::Context::cancelled), and an `async` one is dropped if it has
    /// not after the worker's [grace](crate::WorkerBuilder::revoke_grace). Whoever awaits it gets
    /// [`Error::Revoked`]. A run that succeeds all the same stays a success.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.revoke(&"d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Redis does not answer: it may or may not be revoked, and can be revoked again. Kafka does not answer, for a task
    /// that waits for its time: it is revoked, but would run if Redis lost all data; revoke it again.
    pub async fn revoke(&self, id: &TaskId) -> Result<Revocation, Error> {
        let mut answers = self.inner.store.revoke(std::slice::from_ref(id)).await?;
        Ok(match answers.pop().expect("one answer an id")? {
            lifecycle::Revocation::Revoked { delayed } => {
                if let Some(seq) = delayed {
                    self.admin().forget_delayed(id, seq).await?;
                }
                Revocation::Revoked
            }
            lifecycle::Revocation::Asked(worker) => Revocation::Asked { worker: worker.to_string() },
            lifecycle::Revocation::Ended(status) => Revocation::Ended { status },
        })
    }

    /// Looks after workers, queues and servers.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner.broker), Arc::clone(&self.inner.store), self.inner.config.clone())
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) async fn read(&self, id: &TaskId) -> Result<Option<TaskState>, Error> {
        let mut states = self.inner.store.read(std::slice::from_ref(id), None).await?;
        Ok(states.pop().expect("one answer an id")?)
    }

    /// What to say of a task that the store has nothing of.
    pub(crate) fn missing(&self, id: &TaskId) -> Error {
        let now_ms = self.inner.config.clock.now_ms();
        match id.created_ms() {
            Some(made) if made + ttl::RESULT < now_ms => Error::Expired { id: id.clone() },
            _ => Error::NotFound { id: id.clone() },
        }
    }

    /// Says whether a call could be sent.
    pub(crate) fn check<T>(&self, call: Call<T>) -> Result<(), Error> {
        self.prepare(call).map(drop)
    }

    async fn send_batch<T>(&self, batch: Vec<Result<Prepared, Error>>) -> Vec<Result<TaskHandle<T>, Error>> {
        let (mut records, mut submissions) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let waiters: Vec<Result<(Waiter, Option<Sent>), Error>> = self
            .reserve(batch)
            .await
            .into_iter()
            .map(|sending| {
                let Prepared { record, submission, may_have_ended, unique, is_new } = match sending? {
                    Sending::Record(prepared) => prepared,
                    Sending::Known(id) => return Ok((self.inner.waiting.by_id(&id), None)),
                };
                let waiter = self.inner.waiting.sending(&submission.id);
                records.push(record);
                submissions.push(submission);
                Ok((waiter, Some(Sent { may_have_ended, key: unique.map(|(key, _)| key), is_new })))
            })
            .collect();
        let (published, ()) = tokio::join!(self.inner.broker.publish(records), self.note(&submissions));
        let mut published = published.into_iter();
        let mut confirmed = Vec::new();
        let answers = waiters.into_iter().map(|waiter| {
            let (waiter, sent) = waiter?;
            let Some(Sent { may_have_ended, key, is_new }) = sent else {
                return Ok(TaskHandle::new(self.clone(), waiter, false));
            };
            match published.next().expect("one answer a record") {
                Ok(()) => {
                    if may_have_ended {
                        waiter.look();
                    }
                    confirmed.extend(key.map(|key| (key, waiter.id().clone())));
                    Ok(TaskHandle::new(self.clone(), waiter, is_new))
                }
                Err(source @ BrokerError::Timeout { .. }) => {
                    Err(Error::Unacknowledged { id: waiter.id().clone(), source })
                }
                Err(refused) => Err(refused.into()),
            }
        });
        let answers = answers.collect();
        self.confirm(&confirmed).await;
        answers
    }

    /// Notes tasks as queued. A failure loses nothing but the note: the worker's claim makes the record.
    async fn note(&self, submissions: &[Submission]) {
        let store = &self.inner.store;
        if store.connected_for().is_none() {
            warn!(event = "status_not_noted", tasks = submissions.len(), "redis is away; tasks are sent without it");
        } else if let Err(error) = store.submit(submissions).await {
            warn!(event = "status_not_noted", tasks = submissions.len(), %error, "tasks are sent without it");
        }
    }
}

/// What has to be remembered of a call while its record is under way.
struct Sent {
    may_have_ended: bool,
    key: Option<UniqueKey>,
    is_new: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("servers", &self.inner.config.servers())
            .field("namespace", &self.inner.config.namespace.as_str())
            .finish_non_exhaustive()
    }
}
