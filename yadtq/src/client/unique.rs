//! Unique calls: the key is asked for before anything is sent, and confirmed once Kafka has the task.
//!
//! A caller may die anywhere between the two. Whoever comes next meets a key that is pending, and sends its own record
//! under the id that is kept there: if the first one was sent after all, the two are one task.

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

/// What is to be done about a call.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are records")]
pub(super) enum Sending {
    /// Its record is sent.
    Record(Prepared),
    /// Nothing: an earlier call has made this task of it.
    Known(TaskId),
}

impl Client {
    /// Asks for the keys of unique calls. Without an answer nothing is sent: that is the one write to Redis whose failure
    /// is an error.
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
            let (Reservation { key: UniqueKey { task, key }, .. }, answer) = answers.next().expect("one answer a key");
            let unanswered = |source| Error::Unique { task: task.to_string(), key: key.to_string(), source };
            Ok(match answer.map_err(unanswered)? {
                Reserved::New => Sending::Record(prepared),
                Reserved::Taken(Taken { id, queued: true }) => Sending::Known(id),
                Reserved::Taken(Taken { id, queued: false }) => Sending::Record(prepared.under(id)),
            })
        };
        batch.into_iter().map(sending).collect()
    }

    /// Notes that Kafka has these tasks. A failure costs a later caller a record that turns out to be known, and the
    /// worker notes the same.
    pub(super) async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) {
        if keys.is_empty() {
            return;
        }
        let answers = match self.inner.store.confirm(keys).await {
            Ok(answers) => answers,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            warn!(event = "key_not_confirmed", tasks = keys.len(), %error, "its worker will");
        }
    }
}

impl Prepared {
    /// The same call as a record of the task that an earlier caller has begun.
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
