//! Replays dead letters: their tasks run again.
//!
//! ```text
//!  letters ──► Redis: seq + 1, attempt 1, new token ──► Kafka: the record with that seq ──► settled
//! ```
//! Each step is acknowledged before the next one starts. An interrupted replay can be repeated: Redis gives the same answer,
//! and the record is published again, but both records are one task.

use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use tracing::info;

use super::{
    dead_letters::{BatchLimit, DeadLetterWalk, DeadLetters},
    letter::DeadLetter,
    settled::{delete, settle},
};
use crate::{
    broker::{BrokerError, Outgoing},
    core::{
        lifecycle::{Replay, Status},
        names::Queue,
        text::Escaped,
    },
    error::Error,
    store::{DeadTask, Store, StoreError},
    wire::envelope::{self, Envelope, MAX_SEQ},
};

/// The letters that are replayed together.
const REPLAY_BATCH: BatchLimit = BatchLimit { letters: 256, bytes: 4 * 1_024 * 1_024 };

/// The outcome for a dead letter that was replayed. The letter is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replayed {
    /// The task is queued again, and Kafka has acknowledged it.
    Queued,
    /// The task had already continued and has this status, for example because an earlier replay was interrupted before it
    /// could settle the letter. If the task fails again, it gets a new letter.
    GoneOn(Status),
}

/// Why a dead letter cannot be replayed. The letter is kept.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum NotReplayed {
    /// The record is not a task.
    #[error("its record is not a task, so there is nothing to run")]
    Unreadable,
    /// The record was too large, and was cut.
    #[error("its record was too large and was cut, so it cannot be run")]
    Cut,
    /// The record does not come from a queue of this namespace.
    #[error("it does not come from a queue of this namespace")]
    NoQueue,
    /// The task has expired: it would be revoked at once.
    #[error("its task has expired and would not run; send a new task instead")]
    Expired,
    /// The `seq` of the record can't grow any more.
    #[error("the `seq` of its record can't grow any more; send a new task instead")]
    Seq,
    /// The record is larger than its queue's topic accepts. The task is queued, but has no record until the letter is replayed
    /// again, after the topic's limit was raised.
    #[error(transparent)]
    TooLarge(BrokerError),
    /// The task has not failed; it has this status.
    #[error("its task has not failed, it is {0}")]
    NotFailed(Status),
    /// Redis refused, for example because another program uses the task's key.
    #[error(transparent)]
    Store(StoreError),
}

/// The numbers of letters by what [`DeadLetters::replay`] did with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ReplayReport {
    /// Letters whose tasks are queued again.
    pub replayed: u64,
    /// Letters whose tasks had already continued; see [`Replayed::GoneOn`].
    pub gone_on: u64,
    /// Letters that are kept, because they cannot be replayed.
    pub refused: u64,
}

impl DeadLetters {
    /// Queues the tasks of the selected letters again, from attempt 1 and with a new fence token, as if they had never run.
    /// A letter whose task is queued is settled: nobody sees it any more.
    ///
    /// An interrupted replay can be repeated: every task is still queued as one task.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let client = yadtq::Client::embedded();
    /// let report = client.admin().dead_letters().task("send_email").reason("arguments").replay().await?;
    /// println!("{} queued again, {} cannot be", report.replayed, report.refused);
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// Kafka or Redis does not answer or refuses the request. The letters that are not settled yet are kept.
    pub async fn replay(self) -> Result<ReplayReport, Error> {
        self.replay_each(|_, _| ()).await
    }

    /// Does the same as [`replay`](Self::replay), and calls `each` with every letter and its outcome.
    ///
    /// # Errors
    /// The same as those of [`replay`](Self::replay).
    pub async fn replay_each(
        self, mut each: impl FnMut(&DeadLetter, &Result<Replayed, NotReplayed>),
    ) -> Result<ReplayReport, Error> {
        let (store, mut report) = (Arc::clone(&self.store), ReplayReport::default());
        let mut walk = self.walk().await?;
        walk.tidy().await;
        loop {
            let letters = walk.batch(REPLAY_BATCH).await?;
            if letters.is_empty() {
                break;
            }
            let (outcomes, broken) = replay(&walk, &*store, &letters).await?;
            let settled = || letters.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Some(Ok(_))));
            settle(&*walk.broker, &walk.config.namespace, settled().map(|(letter, _)| letter), "replayed").await?;
            for (letter, outcome) in letters.iter().zip(&outcomes) {
                let Some(outcome) = outcome else { continue };
                match outcome {
                    Ok(Replayed::Queued) => report.replayed += 1,
                    Ok(Replayed::GoneOn(_)) => report.gone_on += 1,
                    Err(_) => report.refused += 1,
                }
                if outcome.is_err() {
                    walk.leave(letter.place);
                }
                each(letter, outcome);
            }
            if let Some(error) = broken {
                return Err(error);
            }
        }
        delete(&*walk.broker, &walk.config.namespace.dead_topic().into(), &walk.settled_below()).await;
        Ok(report)
    }
}

/// The outcome of each letter, and the error of Kafka if there was one. `None`: Kafka did not acknowledge its record.
async fn replay(
    walk: &DeadLetterWalk, store: &dyn Store, letters: &[DeadLetter],
) -> Result<(Vec<Option<Result<Replayed, NotReplayed>>>, Option<Error>), Error> {
    let now_ms = walk.config.clock.now_ms();
    let checked: Vec<_> = letters.iter().map(|letter| check(letter, now_ms)).collect();
    let revivals: Vec<_> =
        checked.iter().filter_map(|checked| checked.as_ref().ok()).map(|(dead, _)| dead.clone()).collect();
    let mut answers = store.replay(&revivals).await?.into_iter();
    let mut records = Vec::new();
    let mut outcomes: Vec<_> = checked
        .into_iter()
        .map(|checked| {
            let (_, record) = checked?;
            match answers.next().expect("one answer for each task") {
                Ok(Replay::Queued) => {
                    records.push(record);
                    Ok(Replayed::Queued)
                }
                Ok(Replay::Past(status)) => Ok(Replayed::GoneOn(status)),
                Ok(Replay::Refused(status)) => Err(NotReplayed::NotFailed(status)),
                Err(error) => Err(NotReplayed::Store(error)),
            }
        })
        .map(Some)
        .collect();
    let mut broken = None;
    let published = walk.broker.publish(records).await;
    let queued = outcomes.iter_mut().zip(letters).filter(|(outcome, _)| matches!(outcome, Some(Ok(Replayed::Queued))));
    for ((outcome, letter), published) in queued.zip(published) {
        match published {
            Ok(()) => info!(
                event = "dead_letter_replayed",
                task_id = letter.id.as_ref().map(|id| id.shown().to_string()),
                task = letter.task.as_deref().map(|task| Escaped(task).to_string()),
                letter = %letter.place,
                "the task of a dead letter is queued again"
            ),
            // No reason to stop: the others may fit.
            Err(error @ BrokerError::TooLarge { .. }) => *outcome = Some(Err(NotReplayed::TooLarge(error))),
            Err(error) => {
                *outcome = None;
                broken = Some(error.into());
            }
        }
    }
    Ok((outcomes, broken))
}

/// Checks whether a letter can be replayed. Returns the task, and its next record.
fn check(letter: &DeadLetter, now_ms: u64) -> Result<(DeadTask, Outgoing), NotReplayed> {
    if letter.cut_from.is_some() {
        return Err(NotReplayed::Cut);
    }
    let value = letter.bytes();
    let task = Envelope::read(value).map_err(|_| NotReplayed::Unreadable)?;
    if task.seq >= MAX_SEQ {
        return Err(NotReplayed::Seq);
    }
    if task.expires.is_some_and(|expires| expires <= now_ms) {
        return Err(NotReplayed::Expired);
    }
    let queue: Queue = letter.queue.as_deref().and_then(|queue| queue.parse().ok()).ok_or(NotReplayed::NoQueue)?;
    let topic = letter.queue_topic().ok_or(NotReplayed::NoQueue)?.into();
    let step = envelope::FollowUp {
        seq: task.seq + 1,
        attempt: 1,
        eta: None,
        queue: queue.as_str(),
        priority: task.priority,
        limit_slot: None,
        unknown_since: None,
        error: None,
    };
    let next = envelope::follow_up(value, step).and_then(|next| envelope::replayed(&next, now_ms));
    let next = next.map_err(|_| NotReplayed::Unreadable)?;
    let headers = letter.own_headers().clone();
    let record = Outgoing { topic, key: task.key(), value: next, partition: None, headers };
    Ok((DeadTask { id: task.id, seq: task.seq, task: task.task, queue: queue.shared() }, record))
}

#[cfg(test)]
mod tests;
