//! One call of a task: its arguments, and the options that the sender chooses.

use std::{
    borrow::Cow,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::value::RawValue;

use super::unique_key::Unique;
use crate::{
    core::{names::TaskId, priority::Priority, retry::Retry},
    error::Error,
    task::{Definition, TaskOptions, Writer},
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
    pub(crate) spec: CallSpec,
    output: PhantomData<fn() -> T>,
}

/// A call without the type of its result, so that the code that sends it is compiled once for all types.
#[derive(Clone, Debug)]
pub(crate) struct CallSpec {
    pub(crate) task: Cow<'static, str>,
    pub(crate) args: Result<Box<RawValue>, Error>,
    /// The names of the parameters of arguments in an array, as a JSON array.
    pub(crate) params: Option<&'static str>,
    pub(crate) queue: Option<String>,
    pub(crate) id: Option<TaskId>,
    pub(crate) expires: Option<Duration>,
    pub(crate) unique: Option<Unique>,
    pub(crate) priority: Priority,
    pub(crate) ordering_key: Option<String>,
    pub(crate) countdown: Option<Duration>,
    pub(crate) eta: Option<SystemTime>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) options: TaskOptions,
}

impl<T> Call<T> {
    /// A call of a task by its name, for programs that do not have the task's code. `args` must serialize to an array (by
    /// position) or an object (by parameter name).
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
        CallSpec::new(Cow::Owned(task), args).into()
    }

    /// A call of a task whose definition this program has.
    #[doc(hidden)]
    pub fn of(definition: &Definition, args: Writer) -> Self {
        let params = Some(args.params).filter(|params| *params != "[]");
        let call = CallSpec::new(Cow::Borrowed(definition.name), args.finish());
        // The definition's `options` are not copied: the worker applies its own, and its code of the task may be newer.
        CallSpec {
            params,
            queue: definition.queue.map(str::to_owned),
            expires: definition.expires,
            unique: definition.unique.map(|ttl| Unique { key: None, ttl }),
            priority: definition.priority,
            ..call
        }
        .into()
    }

    /// The queue to which the task is sent. Default: the queue of the task's definition, else `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.spec.queue = Some(queue.into());
        self
    }

    /// How soon the task starts, compared with other tasks of its queue. Default: the priority of the task's definition,
    /// else normal.
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
        self.spec.priority = priority;
        self
    }

    /// Runs the tasks of one queue that have this key one at a time, in the order in which they were sent. If a task fails,
    /// it is retried before the next one starts: the tasks behind it wait until it has reached a final state. The key has
    /// 1 to 256 bytes. The order is defined for sends that are awaited one after the other, and for the calls of one
    /// [`Client::send_many`](crate::Client::send_many). The [guide](crate::guide::ordering) says what it costs. Default: no
    /// order.
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
    /// Sending the call fails with [`Error::Config`] if the key is not valid, or if it is combined with a priority,
    /// `countdown` or `eta`.
    pub fn ordering_key(mut self, key: impl Into<String>) -> Self {
        self.spec.ordering_key = Some(key.into());
        self
    }

    /// The task's id. Default: a new UUIDv7. If a send failed with [`Error::Unacknowledged`], it is safe to send the same
    /// task again with the same id: it reaches one final state.
    pub fn id(mut self, id: TaskId) -> Self {
        self.spec.id = Some(id);
        self
    }

    /// Adds a header: what is no argument but goes with the task, such as a tenant or the context of a trace. It is a header of
    /// the Kafka record, which the task reads with [`Context::header`](crate::Context::header) in every run. Tasks that the task
    /// sends inherit it, unless they set one of this name; a future that it spawns does not count as inside the task. A second
    /// value of a name replaces the first one. Default: none.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn invoice(order: u64) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// invoice.call(17).header("tenant", "acme").send(&client).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Sending the call fails with [`Error::Config`] if the name is empty, longer than 256 bytes, has control characters or
    /// begins with `yadtq-`, or if all headers have more than 8,192 bytes together.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.headers.push((name.into(), value.into()));
        self
    }

    /// The longest time that one run may take, at least 1 ms. Default: the timeout of the task's definition, else no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.options.timeout = Some(timeout);
        self
    }

    /// How long one run may take before it is asked to end: [`Context::cancelled`](crate::Context::cancelled) returns, and
    /// the task can save what it has. It goes on if it does not end; what it returns is its outcome. At least 1 ms. Default:
    /// the task's own, else 90 % of the timeout.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn crawl(url: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// use std::time::Duration;
    ///
    /// let call = crawl.call("https://example.org".to_owned()).timeout(Duration::from_secs(60));
    /// call.soft_timeout(Duration::from_secs(50)).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.spec.options.soft_timeout = Some(timeout);
        self
    }

    /// The time from now within which the task must start, at least 1 ms. If it has not started by then, it is revoked, and
    /// whoever awaits it gets [`Error::Expired`]. The sender's clock sets the time, and the worker's clock checks it.
    /// Default: the expiry of the task's definition, else no limit.
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
        self.spec.expires = Some(time);
        self
    }

    /// Deduplicates by key: within `ttl`, a later call of the same task with this key returns the first call's handle and
    /// sends nothing, whatever its arguments and options are. [`TaskHandle::is_new`](crate::TaskHandle::is_new) says whether a call made the task.
    ///
    /// A key has 1 to 256 bytes, and belongs to a task name in a namespace: every queue has the same keys. It is kept for
    /// `ttl`, 1 second to 365 days, from the first call on, even if the task has ended or was revoked. An [`id`](Self::id)
    /// is used only by the first call. Keys are stored in Redis: if Redis loses them, the next call is a first call again.
    /// If the first caller dies before Kafka has its task, the next caller sends the task under the same id.
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
    /// Sending the call fails with [`Error::Unique`] if Redis does not answer, and with [`Error::Config`] if the key or the
    /// time is not valid.
    pub fn unique(mut self, key: impl Into<String>, ttl: Duration) -> Self {
        self.spec.unique = Some(Unique { key: Some(key.into()), ttl });
        self
    }

    /// Deduplicates as [`unique`](Self::unique) does, with the arguments as the key: `args:` and the SHA-256 of their
    /// canonical JSON (RFC 8785), in which the order of an object's fields does not matter. The task's option `unique = "1h"` does the same for all
    /// calls.
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
        self.spec.unique = Some(Unique { key: None, ttl });
        self
    }

    /// Makes a new task for this call, even if the task has the option `unique`.
    ///
    /// ```no_run
    /// # #[yadtq::task(unique = "1h")] async fn invoice(order: u64) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// invoice.call(17).not_unique().send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn not_unique(mut self) -> Self {
        self.spec.unique = None;
        self
    }

    /// Delays the task: it runs after this time and not before. A delayed task waits in Kafka and takes neither a slot nor
    /// memory of a worker, so the time may be very long; see the [guide](crate::guide::scheduling). Default: no delay.
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
        self.spec.countdown = Some(time);
        self
    }

    /// Runs the task at this time and not before, or at once if the time is past. It is exact to the millisecond, and must
    /// be before the year 9999. Default: at once.
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
        self.spec.eta = Some(time);
        self
    }

    /// The number of retries after the first attempt, at most 1,000. Default: that of the task's definition, else that of
    /// the worker, which is 3 unless set.
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn fetch(url: String) {}
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// fetch.call("https://example.org".to_owned()).max_retries(10).send(&client).await?;
    /// # Ok(()) }
    /// ```
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.spec.options.retry = self.spec.options.retry.max(retries);
        self
    }

    /// The number of retries and the delays between them. What it leaves out comes from the task's definition, else from the
    /// worker.
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
        self.spec.options.retry = retry;
        self
    }

    /// How long the result is kept after the task has ended, at most 365 days. Zero keeps no result; any other time below
    /// an hour counts as an hour. Default: that of the task's definition, else that of the worker: 24 h unless set, and an hour for a
    /// task that returns nothing.
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
        self.spec.options.result_ttl = Some(ttl);
        self
    }

    /// Keeps no result, which saves memory in Redis. Whoever awaits the handle of a task that succeeded gets
    /// [`Error::NoResult`].
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
}

impl CallSpec {
    fn new(task: Cow<'static, str>, args: Result<Box<RawValue>, Error>) -> Self {
        Self {
            task,
            args,
            params: None,
            queue: None,
            id: None,
            expires: None,
            unique: None,
            priority: Priority::Normal,
            ordering_key: None,
            countdown: None,
            eta: None,
            headers: Vec::new(),
            options: TaskOptions::default(),
        }
    }
}

impl<T> From<CallSpec> for Call<T> {
    fn from(spec: CallSpec) -> Self {
        Self { spec, output: PhantomData }
    }
}
