//! Forgets dead letters.

use super::{
    dead_letters::DeadLetters,
    settled::{delete, settle},
};
use crate::error::Error;

/// Letters that are settled together.
const BATCH: (usize, usize) = (5_000, 16 * 1_024 * 1_024);

impl DeadLetters {
    /// How many there are now.
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

    /// Forgets these letters, and tells how many they were. Their tasks stay failed. Without a filter all that are there
    /// when it begins.
    ///
    /// A letter's bytes are deleted in Kafka once all older ones of its partition are settled too, and at once if there
    /// is no filter.
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
    /// Kafka does not answer, or refuses: some letters may be forgotten, and calling it again goes on.
    pub async fn purge(self) -> Result<u64, Error> {
        self.purge_each(|_| ()).await
    }

    /// As [`purge`](Self::purge), and tells how many are done, again and again.
    ///
    /// # Errors
    /// As those of [`purge`](Self::purge).
    pub async fn purge_each(self, mut done: impl FnMut(u64)) -> Result<u64, Error> {
        let is_all = self.is_all();
        let mut walk = self.walk().await?;
        walk.tidy().await;
        let dead = walk.config.namespace.dead_topic().into();
        let mut purged = 0;
        loop {
            let letters = walk.batch(BATCH).await?;
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
