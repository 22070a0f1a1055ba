//! Sends calls: unique keys are reserved, then the records go to Kafka while Redis records the tasks as queued.

use serde::de::DeserializeOwned;
use tracing::warn;

use super::{Call, CallSpec, Client, TaskHandle, prepare::Prepared, reserve::Sending, waiting::Waiter};
use crate::{broker::BrokerError, core::unique::UniqueKey, error::Error, store::Submission, task::Task};

/// Largest number of tasks in one round trip of [`Client::send_many`].
const SEND_BATCH: usize = 1_000;

impl<T> Call<T> {
    /// Sends the task. `Ok` means that Kafka has acknowledged the task: it will run.
    ///
    /// # Errors
    /// An argument or option is wrong, the record is too large, or Kafka did not acknowledge the task in time.
    pub async fn send(self, client: &Client) -> Result<TaskHandle<T>, Error>
    where
        T: DeserializeOwned,
    {
        client.send(self.spec).await
    }

    /// Sends the task with the [current client](Client::current): inside a task the worker's client, else the installed
    /// client, else a client that is made from the environment and installed.
    ///
    /// # Errors
    /// The same as those of [`Call::send`]. It also fails if a setting in the environment is wrong.
    pub async fn delay(self) -> Result<TaskHandle<T>, Error>
    where
        T: DeserializeOwned,
    {
        Client::current().await?.send(self.spec).await
    }
}

/// Sends a call of `T`. It repeats no bounds of [`Task::Output`], so the compiler reports a wrong output only once.
///
/// # Errors
/// The same as those of [`Call::delay`].
pub async fn delay<T: Task>(call: Call<T::Output>) -> Result<TaskHandle<T::Output>, Error> {
    call.delay().await
}

impl Client {
    /// Sends many calls, up to 1,000 in one round trip. It returns one answer for each call, in the same order. A call that
    /// fails does not stop the others.
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
            let batch: Vec<_> = calls.by_ref().take(SEND_BATCH).map(|call| self.prepare(call.spec)).collect();
            if batch.is_empty() {
                return answers;
            }
            answers.extend(self.send_batch(batch).await.into_iter().map(|sent| sent.map(|sent| self.made(sent))));
        }
    }

    async fn send<T>(&self, call: CallSpec) -> Result<TaskHandle<T>, Error> {
        let mut answers = self.send_batch(vec![Ok(self.prepare(call)?)]).await;
        answers.pop().expect("one answer for each call").map(|sent| self.made(sent))
    }

    /// The handle of a task that was sent, with the type that the task returns.
    fn made<T>(&self, (waiter, is_new): (Waiter, bool)) -> TaskHandle<T> {
        TaskHandle::new(self.clone(), waiter, is_new)
    }

    /// Checks a call as [`send`](Self::send) does, without sending it.
    pub(crate) fn check(&self, call: CallSpec) -> Result<(), Error> {
        self.prepare(call).map(drop)
    }

    /// Sends calls. It returns one answer for each call: what waits for the task, and whether this call made the task.
    async fn send_batch(&self, batch: Vec<Result<Prepared, Error>>) -> Vec<Result<(Waiter, bool), Error>> {
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
                return Ok((waiter, false));
            };
            match published.next().expect("one answer for each record") {
                Ok(()) => {
                    if may_have_ended {
                        waiter.look();
                    }
                    confirmed.extend(key.map(|key| (key, waiter.id().clone())));
                    Ok((waiter, is_new))
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

    /// Records tasks as queued in Redis. A failure loses no task: the worker that claims a task writes its hash.
    async fn note(&self, submissions: &[Submission]) {
        let store = &self.inner.store;
        if store.connected_for().is_none() {
            warn!(
                event = "status_not_noted",
                tasks = submissions.len(),
                "not connected to redis; tasks are sent without it"
            );
        } else if let Err(error) = store.submit(submissions).await {
            warn!(event = "status_not_noted", tasks = submissions.len(), %error, "cannot record the status in redis; tasks are sent without it");
        }
    }
}

/// What the client keeps about a call until Kafka has acknowledged its record.
struct Sent {
    may_have_ended: bool,
    key: Option<UniqueKey>,
    is_new: bool,
}
