//! Counts and purges dead letters.

use super::{
    dead_letters::{BatchLimit, DeadLetters},
    settled::{delete, settle},
};
use crate::error::Error;

/// The letters that are settled by one record.
const PURGE_BATCH: BatchLimit = BatchLimit { letters: 5_000, bytes: 16 * 1_024 * 1_024 };

impl DeadLetters {
    /// The number of selected letters that exist now.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn count(self) -> Result<u64, Error> {
        let (mut walk, mut count) = (self.walk().await?, 0);
        while walk.next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Purges the selected letters that exist when it begins, and returns how many there were. Nobody sees them any more.
    /// Their tasks remain failed.
    ///
    /// Kafka deletes a letter's bytes once all older letters of its partition are replayed or purged too. A purge without a
    /// filter deletes them at once.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let client = yadtq::Client::embedded();
    /// # use std::time::Duration;
    /// let month = Duration::from_secs(30 * 24 * 3_600);
    /// let purged = client.admin().dead_letters().older_than(month).purge().await?;
    /// # assert_eq!(purged, 0);
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// Kafka does not answer or refuses the request. Some letters may be purged already; calling it again purges the rest.
    pub async fn purge(self) -> Result<u64, Error> {
        self.purge_each(|_| ()).await
    }

    /// Does the same as [`purge`](Self::purge), and calls `done` after every batch with the number of letters purged so far.
    ///
    /// # Errors
    /// The same as those of [`purge`](Self::purge).
    pub async fn purge_each(self, mut done: impl FnMut(u64)) -> Result<u64, Error> {
        let is_all = self.is_all();
        let mut walk = self.walk().await?;
        walk.tidy().await;
        let dead = walk.config.namespace.dead_topic().into();
        let mut purged = 0;
        loop {
            let letters = walk.batch(PURGE_BATCH).await?;
            if letters.is_empty() {
                break;
            }
            purged += letters.len() as u64;
            if !is_all {
                settle(&*walk.broker, &walk.config.namespace, letters.iter(), "purged").await?;
            }
            done(purged);
        }
        if is_all {
            let below: Vec<_> = walk.settled_below().into_iter().collect();
            walk.broker.truncate(&dead, &below).await?;
        } else {
            delete(&*walk.broker, &dead, &walk.settled_below()).await;
        }
        Ok(purged)
    }
}
