//! One call of a task: its arguments and what the sender decides about it.

use std::{borrow::Cow, marker::PhantomData, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    client::Client,
    core::names::TaskId,
    error::Error,
    handle::TaskHandle,
    task::{Definition, Writer},
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
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call<T> {
    pub(crate) task: Cow<'static, str>,
    pub(crate) args: Result<Box<RawValue>, Error>,
    pub(crate) queue: Option<String>,
    pub(crate) id: Option<TaskId>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) result_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
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
        Self { expires: definition.expires, ..call }
    }

    fn new(task: Cow<'static, str>, args: Result<Box<RawValue>, Error>, queue: Option<String>) -> Self {
        Self { task, args, queue, id: None, timeout: None, result_ttl: None, expires: None, output: PhantomData }
    }

    /// The queue to send it to. Default: the task's own, else `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
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
}
