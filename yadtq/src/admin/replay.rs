//! Lets dead tasks run again.
//!
//! ```text
//!  letters ──► Redis: seq + 1, attempt 1, new token ──► Kafka: the record under that seq ──► settled
//! ```
//! Each arrow is acknowledged before the next one. What dies in between can be repeated: Redis then answers the same,
//! and the record is published once more, which is one task all the same.

use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use tracing::info;

use super::{
    dead_letters::{DeadLetterWalk, DeadLetters},
    letter::DeadLetter,
    settled::{delete, settle},
};
use crate::{
    broker::Outgoing,
    core::{
        lifecycle::{Replay, Status},
        names::Queue,
    },
    error::Error,
    store::{Revival, Store, StoreError},
    wire::envelope::{self, Envelope},
};

/// Letters that go through the servers together: at most so many, and so many bytes.
const BATCH: (usize, usize) = (256, 4 * 1_024 * 1_024);

/// What became of a dead letter that was to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replayed {
    /// Its task is queued again, and acknowledged.
    Queued,
    /// Its task has gone on since then, as after an earlier replay of which the letter did not hear. The letter is
    /// settled; if the task fails again, or did, there is another one.
    GoneOn(Status),
}

/// Why a dead letter cannot be replayed. It stays.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum NotReplayed {
    /// The record is no task.
    #[error("its record is not a task, so there is nothing to run")]
    Unreadable,
    /// Part of the record is missing.
    #[error("its record was cut short, so it cannot be run")]
    Cut,
    /// It does not come from a queue of this namespace.
    #[error("it does not come from a queue of this namespace")]
    NoQueue,
    /// Its time is over: it would be revoked at once.
    #[error("it expired, and would not be run; send the task anew")]
    Expired,
    /// The task has not failed.
    #[error("its task has not failed, it is {0}")]
    NotFailed(Status),
    /// Redis has something else in the place of the task.
    #[error(transparent)]
    Store(StoreError),
}

/// What [`DeadLetters::replay`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ReplayReport {
    /// Tasks that are queued again.
    pub replayed: u64,
    /// Letters whose task had gone on before.
    pub gone_on: u64,
    /// Letters that stay, because they cannot be replayed.
    pub refused: u64,
}

impl DeadLetters {
    /// Queues the tasks of these letters again, from attempt 1 and with a new token, as if they had never run. The
    /// letters are settled: they are not told any more.
    ///
    /// It may be called again whenever it was interrupted: every task runs once all the same.
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
    /// Kafka or Redis does not answer, or refuses: the letters that are not settled are still there.
    pub async fn replay(self) -> Result<ReplayReport, Error> {
        self.replay_each(|_, _| ()).await
    }

    /// As [`replay`](Self::replay), and tells of each letter when it is dealt with.
    ///
    /// # Errors
    /// As those of [`replay`](Self::replay).
    pub async fn replay_each(
        self, mut each: impl FnMut(&DeadLetter, &Result<Replayed, NotReplayed>),
    ) -> Result<ReplayReport, Error> {
        let (store, mut report) = (Arc::clone(&self.store), ReplayReport::default());
        let mut walk = self.walk().await?;
        walk.tidy().await;
        loop {
            let letters = walk.batch(BATCH).await?;
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

/// What became of each letter; `None`: its record is not acknowledged, for the reason beside.
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
            match answers.next().expect("one answer a task") {
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
                task_id = letter.id.as_ref().map(|id| id.as_str()),
                task = letter.task,
                letter = %letter.place,
                "a dead task is queued again"
            ),
            Err(error) => {
                *outcome = None;
                broken = Some(error.into());
            }
        }
    }
    Ok((outcomes, broken))
}

/// The task to revive, and its record.
fn check(letter: &DeadLetter, now_ms: u64) -> Result<(Revival, Outgoing), NotReplayed> {
    if letter.cut_from.is_some() {
        return Err(NotReplayed::Cut);
    }
    let value = letter.bytes();
    let task = Envelope::read(value).map_err(|_| NotReplayed::Unreadable)?;
    if task.expires.is_some_and(|expires| expires <= now_ms) {
        return Err(NotReplayed::Expired);
    }
    let queue: Queue = letter.queue.as_deref().and_then(|queue| queue.parse().ok()).ok_or(NotReplayed::NoQueue)?;
    let topic = letter.source_topic.as_deref().ok_or(NotReplayed::NoQueue)?.into();
    let step = envelope::Step {
        seq: task.seq + 1,
        attempt: 1,
        eta: None,
        queue: queue.as_str(),
        priority: task.priority,
        limit_slot: None,
        error: None,
    };
    let next = envelope::hand_on(value, step).map_err(|_| NotReplayed::Unreadable)?;
    let headers = letter.own_headers().clone();
    let record = Outgoing { topic, key: task.key(), value: next, partition: None, headers };
    Ok((Revival { id: task.id, seq: task.seq, task: task.task, queue: queue.shared() }, record))
}

#[cfg(test)]
mod tests;
