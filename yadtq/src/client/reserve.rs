//! Unique calls: a key is reserved before anything is sent, and confirmed after Kafka has acknowledged the task.
//!
//! A caller may die between the two. The next caller then finds a key that is reserved but not confirmed, and sends its own
//! record under the id that is stored with the key. If the first record was sent after all, both records are one task.

use tracing::warn;

use super::{Client, prepare::Prepared};
use crate::{
    core::{
        names::TaskId,
        unique::{Reserved, Taken, UniqueKey},
    },
    error::Error,
    store::Reservation,
    wire::envelope,
};

/// What a call leads to.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are records")]
pub(super) enum Sending {
    /// The call's record is sent.
    Record(Prepared),
    /// Nothing is sent: an earlier call with the same key has made this task.
    Known(TaskId),
}

impl Client {
    /// Reserves the keys of unique calls. If Redis does not answer, those calls are not sent: of all writes that a send makes
    /// to Redis, this is the only one whose failure is an error.
    pub(super) async fn reserve(&self, batch: Vec<Result<Prepared, Error>>) -> Vec<Result<Sending, Error>> {
        let asked = |prepared: &Prepared| {
            let (key, ttl_ms) = prepared.unique.clone()?;
            Some(Reservation { key, id: prepared.submission.id.clone(), ttl_ms })
        };
        let keys: Vec<Reservation> = batch.iter().flatten().filter_map(asked).collect();
        if keys.is_empty() {
            return batch.into_iter().map(|prepared| prepared.map(Sending::Record)).collect();
        }
        let answers = match self.inner.store.reserve(&keys).await {
            Ok(answers) => answers,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut answers = keys.into_iter().zip(answers);
        let sending = |prepared: Result<Prepared, Error>| {
            let prepared = prepared?;
            if prepared.unique.is_none() {
                return Ok(Sending::Record(prepared));
            }
            let (Reservation { key: UniqueKey { task, key }, .. }, answer) =
                answers.next().expect("one answer for each key");
            let unanswered = |source| Error::Unique { task: task.to_string(), key: key.to_string(), source };
            Ok(match answer.map_err(unanswered)? {
                Reserved::New => Sending::Record(prepared),
                Reserved::Taken(Taken { id, queued: true }) => Sending::Known(id),
                Reserved::Taken(Taken { id, queued: false }) => Sending::Record(prepared.under(id)),
            })
        };
        batch.into_iter().map(sending).collect()
    }

    /// Confirms the keys of tasks that Kafka has acknowledged. A failure does no harm: until the worker confirms the key, a
    /// later caller sends one more record of the same task.
    pub(super) async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) {
        if keys.is_empty() {
            return;
        }
        let answers = match self.inner.store.confirm(keys).await {
            Ok(answers) => answers,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            warn!(event = "key_not_confirmed", tasks = keys.len(), %error, "the worker that claims the task will confirm its key");
        }
    }
}

impl Prepared {
    /// The same call as a record of the task for which an earlier caller reserved the key.
    fn under(mut self, id: TaskId) -> Self {
        let own = std::mem::replace(&mut self.submission.id, id.clone());
        self.record.value = envelope::under(&self.record.value, id.as_str()).expect("it was written a moment ago");
        if let Some(rest) = self.record.key.strip_prefix(own.as_str().as_bytes()) {
            self.record.key = [id.as_str().as_bytes(), rest].concat().into();
        }
        self.may_have_ended = true;
        self.is_new = false;
        self
    }
}
