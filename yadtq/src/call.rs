//! One call of a task: its arguments and what the sender decides about it.

use std::{
    borrow::Cow,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    client::Client,
    core::{names::TaskId, priority::Priority, retry::Retry},
    error::Error,
    handle::TaskHandle,
    task::{Definition, Writer},
    unique::Unique,
};

/// A task with its arguments, ready to be sent. Made by the task's `call`, or by [`Call::named`].
///
/// ```no_run
/// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// use std::time::Duration;
///
/// let handle = add.call(1, 2).queue("math").timeout(Duration::from_secs(5)).send(&client).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call<T> {
    pub(crate) task: Cow<'static, str>,
    pub(crate) args: Result<Box<RawValue>, Error>,
    pub(crate) queue: Option<String>,
    pub(crate) id: Option<TaskId>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) result_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) unique: Option<Unique>,
    pub(crate) priority: Priority,
    pub(crate) ordering_key: Option<String>,
    pub(crate) countdown: Option<Duration>,
    pub(crate) eta: Option<SystemTime>,
    pub(crate) retry: Retry,
    output: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    /// A call of a task whose code this program does not have. `args` must serialize to an array (by position)
    /// or an object (by parameter name).
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use yadtq::Call;
    ///
    /// let sum: i64 = Call::named("add", (1, 2)).send(&client).await?.await?;
    /// # Ok(()) }
    /// ```
    pub fn named(task: impl Into<String>, args: impl Serialize) -> Self {
        let task = task.into();
        let refused = |detail: String| Error::Argument { task: task.clone(), parameter: "args".to_owned(), detail };
        let args =
            serde_json::value::to_raw_value(&args).map_err(|e| refused(e.to_string())).and_then(|args| {
                match args.get().starts_with(['[', '{']) {
                    true => Ok(args),
                    false => Err(refused("they must be an array or an object".to_owned())),
                }
            });
        Self::new(Cow::Owned(task), args, None)
    }

    /// A call of a defined task.
    #[doc(hidden)]
    pub fn of(definition: &Definition, args: Writer) -> Self {
        let call = Self::new(Cow::Borrowed(definition.name), args.finish(), definition.queue.map(str::to_owned));
        let unique = definition.unique.map(|ttl| Unique { key: None, ttl });
        Self { expires: definition.expires, unique, priority: definition.priority, ..call }
    }

    fn new(task: Cow<'static, str>, args: Result<Box<RawValue>, Error>, queue: Option<String>) -> Self {
        Self {
            task,
            args,
            queue,
            id: None,
            timeout: None,
            result_ttl: None,
            expires: None,
            unique: None,
            priority: Priority::Normal,
            ordering_key: None,
            countdown: None,
            eta: None,
            retry: Retry::new(),
            output: PhantomData,
        }
    }

    /// The queue to send it to. Default: the task's own, else `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// How soon it runs beside others of its queue. Default: the task's own, else normal.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn send_code(to: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use yadtq::Priority;
    ///
    /// send_code.call("ada".to_owned()).priority(Priority::High).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Runs it after all tasks of the same queue that were sent with this key before, and before those that are sent with
    /// it later: one at a time. One that fails is tried again in its place, and the next ones wait until it has ended for
    /// good. The key has 1 to 256 bytes. Order is that of sends of which one was awaited before the next, or of one
    /// [`Client::send_many`]. See the [guide](crate::guide::ordering) for its price. Default: no order.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn book(customer: u64, cents: i64) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// book.call(17, 500).ordering_key("customer-17").send(&client).await?;
    /// book.call(17, -500).ordering_key("customer-17").send(&client).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Sending it fails with [`Error::Config`] if the key cannot be used, or is given beside a priority, `countdown` or
    /// `eta`.
    pub fn ordering_key(mut self, key: impl Into<String>) -> Self {
        self.ordering_key = Some(key.into());
        self
    }

    /// The task's id. Default: a new UUIDv7. Sending the same task again under the id of an earlier try that
    /// failed with [`Error::Unacknowledged`] is safe: it ends once.
    pub fn id(mut self, id: TaskId) -> Self {
        self.id = Some(id);
        self
    }

    /// How long one run may take. Default: the task's own, else no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long from now it may start. Later it is not run: it ends as revoked, and whoever awaits it gets
    /// [`Error::Revoked`]. Goes by the clocks of sender and worker. Default: the task's own, else no limit.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn send_code(to: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    ///
    /// send_code.call("ada".to_owned()).expires_in(Duration::from_secs(60)).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires = Some(time);
        self
    }

    /// Makes no second task of the same key for so long: a later call of the same task with that key sends nothing, and
    /// gets the handle of the first one's task, whatever its arguments and options are.
    /// [`TaskHandle::is_new`] tells the two apart.
    ///
    /// The key is one of the task's name, in the whole namespace, and has 1 to 256 bytes. It is kept for `ttl`, 1 second to
    /// 365 days, from the first call on, also when the task has ended or was revoked. An [`id`](Self::id) counts only if
    /// the call is the first one. Keys live in Redis: if it loses them, the next call is the first one again. If the first
    /// caller dies before Kafka has its task, the next one sends the task under the same id.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn invoice(order: u64) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    ///
    /// let hour = Duration::from_secs(3_600);
    /// let first = invoice.call(17).unique("order-17", hour).send(&client).await?;
    /// let second = invoice.call(17).unique("order-17", hour).send(&client).await?;
    /// assert_eq!(first.id(), second.id());
    /// assert!(first.is_new() && !second.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Sending it fails with [`Error::Unique`] if Redis does not answer, and with [`Error::Config`] if the key or the time
    /// cannot be used.
    pub fn unique(mut self, key: impl Into<String>, ttl: Duration) -> Self {
        self.unique = Some(Unique { key: Some(key.into()), ttl });
        self
    }

    /// As [`unique`](Self::unique), with the arguments as the key: `args:` and the SHA-256 of their JSON, in which the
    /// order of an object's fields does not matter. Also as the task's option `unique = "1h"`.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn invoice(order: u64) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    ///
    /// invoice.call(17).unique_args(Duration::from_secs(3_600)).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn unique_args(mut self, ttl: Duration) -> Self {
        self.unique = Some(Unique { key: None, ttl });
        self
    }

    /// Makes a task of its own of this call, although the task's code says `unique`.
    ///
    /// ```no_run
    /// # #[yadtq::task(unique = "1h")] async fn invoice(order: u64) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// invoice.call(17).not_unique().send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn not_unique(mut self) -> Self {
        self.unique = None;
        self
    }

    /// Runs it after this time and not before. Nothing waits in a worker's memory or on a slot, and no time is too
    /// long; see the [guide](crate::guide::scheduling). Default: at once.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn remind(whom: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    ///
    /// remind.call("ada".to_owned()).countdown(Duration::from_secs(3_600)).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn countdown(mut self, time: Duration) -> Self {
        self.countdown = Some(time);
        self
    }

    /// Runs it at this time and not before; at once, if that is past. To the millisecond, before the year 9999.
    /// Default: at once.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn remind(whom: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::{Duration, SystemTime};
    ///
    /// let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3_600);
    /// remind.call("ada".to_owned()).eta(tomorrow).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn eta(mut self, time: SystemTime) -> Self {
        self.eta = Some(time);
        self
    }

    /// How often it is tried again after its first attempt, at most 1,000. Default: the task's own, else the
    /// worker's, 3.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn fetch(url: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// fetch.call("https://example.org".to_owned()).max_retries(10).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.retry = self.retry.max(retries);
        self
    }

    /// When failed attempts are made again. What it leaves out is as the task says, else the worker.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn fetch(url: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    /// use yadtq::Retry;
    ///
    /// let retry = Retry::new().max(10).base(Duration::from_secs(5));
    /// fetch.call("https://example.org".to_owned()).retry(retry).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// How long the result is kept after the end, at least an hour and at most 365 days; zero: not at all. Default:
    /// the task's own, else the worker's, 24 h.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn report() -> String { String::new() }
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    ///
    /// report.call().result_ttl(Duration::from_secs(7 * 24 * 3_600)).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.result_ttl = Some(ttl);
        self
    }

    /// Does not keep the result: whoever awaits the handle of a task that succeeded gets [`Error::NoResult`].
    /// Saves memory in Redis where nobody asks.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn warm_cache() -> usize { 0 }
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// warm_cache.call().ignore_result().send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn ignore_result(self) -> Self {
        self.result_ttl(Duration::ZERO)
    }

    /// Sends it. `Ok` means that Kafka has acknowledged the task: it will run.
    ///
    /// # Errors
    /// An argument or option is wrong, the record is too large, or Kafka did not acknowledge it in time.
    pub async fn send(self, client: &Client) -> Result<TaskHandle<T>, Error>
    where
        T: DeserializeOwned,
    {
        client.send(self).await
    }

    /// Sends it with the client at hand: inside a task the worker's, else the installed one, else one made from
    /// the environment.
    ///
    /// # Errors
    /// As [`Call::send`]; also if the environment has a wrong setting.
    pub async fn delay(self) -> Result<TaskHandle<T>, Error>
    where
        T: DeserializeOwned,
    {
        Client::current().await?.send(self).await
    }

    /// The same call, for somebody who does not need its result.
    pub(crate) fn untyped(self) -> Call<()> {
        Call {
            task: self.task,
            args: self.args,
            queue: self.queue,
            id: self.id,
            timeout: self.timeout,
            result_ttl: self.result_ttl,
            expires: self.expires,
            unique: self.unique,
            priority: self.priority,
            ordering_key: self.ordering_key,
            countdown: self.countdown,
            eta: self.eta,
            retry: self.retry,
            output: PhantomData,
        }
    }
}
