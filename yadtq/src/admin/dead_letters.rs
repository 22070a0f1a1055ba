//! Selects dead letters, and reads them as a page or one after the other.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    Admin,
    letter::{DeadLetter, Place},
    settled::Ledger,
    times,
    walk::{Positions, Walk},
};
use crate::{
    broker::{Broker, Incoming},
    config::Config,
    error::Error,
    store::Store,
};

/// Largest number of letters on a page. A walk has no limit.
const MAX_PAGE_LETTERS: usize = 10_000;
/// Size at which a page ends, in bytes. The letter that reaches it is the last one of the page.
const MAX_PAGE_BYTES: usize = 32 * 1_024 * 1_024;

/// Default for [`DeadLetters::limit`].
const DEFAULT_PAGE_LETTERS: usize = 100;

/// A selection of the dead letters of a namespace, at first all of them; see [`Admin::dead_letters`](super::Admin::dead_letters).
///
/// Every filter narrows the selection; a filter that is set twice has its last value. Only [`id`](Self::id) adds up: each
/// further id selects more letters.
#[derive(Clone, Debug)]
#[must_use = "it does nothing before one of its async methods is called"]
pub struct DeadLetters {
    broker: Arc<dyn Broker>,
    pub(super) store: Arc<dyn Store>,
    config: Config,
    filter: Filter,
    limit: usize,
    cursor: Option<String>,
}

/// A page of dead letters, and where the next page starts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetterPage {
    /// The letters, oldest first.
    pub letters: Vec<DeadLetter>,
    /// The [cursor](DeadLetters::cursor) of the next page; `None`: this is the last page.
    pub next: Option<String>,
}

/// Reads the selected dead letters one after the other; see [`DeadLetters::walk`].
pub struct DeadLetterWalk {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) config: Config,
    walk: Walk,
    ledger: Ledger,
    filter: Filter,
    now_ms: u64,
    /// The first letter of each partition that the walk passed over.
    left: Positions,
    /// Whether the walk began at the start of the topic, without a cursor.
    is_whole: bool,
}

/// The size at which a batch of letters ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimit {
    pub(super) letters: usize,
    /// The letter that reaches this size is the last one of the batch.
    pub(super) bytes: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    /// Ids of tasks. A text that may be either an id or a place is in `places` too.
    ids: HashSet<String>,
    places: HashSet<Place>,
    task: Option<String>,
    queue: Option<String>,
    reason: Option<String>,
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
}

impl Admin {
    /// The dead letters of the namespace: tasks that failed for good, and records that could not be run.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(Arc::clone(&self.broker), Arc::clone(&self.store), self.config.clone())
    }
}

impl DeadLetters {
    pub(super) fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Self {
        Self { broker, store, config, filter: Filter::default(), limit: DEFAULT_PAGE_LETTERS, cursor: None }
    }

    /// Selects the letters of the task with this id, or the letter at this [`Place`], such as `3/1042`. Called again, it adds
    /// the letters of another task or place.
    pub fn id(mut self, id: impl ToString) -> Self {
        let id = id.to_string();
        self.filter.places.extend(id.parse::<Place>());
        self.filter.ids.insert(id);
        self
    }

    /// Selects only letters of tasks with this name.
    pub fn task(mut self, name: impl Into<String>) -> Self {
        self.filter.task = Some(name.into());
        self
    }

    /// Selects only letters from this queue.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.filter.queue = Some(name.into());
        self
    }

    /// Selects only letters with this [reason](DeadLetter::reason).
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.filter.reason = Some(reason.into());
        self
    }

    /// Selects only letters that became dead letters longer ago than this.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.filter.older_than = Some(age);
        self
    }

    /// Selects only letters that became dead letters at most this long ago.
    pub fn newer_than(mut self, age: Duration) -> Self {
        self.filter.newer_than = Some(age);
        self
    }

    /// The largest number of letters on a [page](Self::page), from 1 to 10,000. A page with large letters has fewer.
    /// Default: 100.
    pub fn limit(mut self, letters: usize) -> Self {
        self.limit = letters;
        self
    }

    /// Continues where an earlier page or walk with the same filters ended. Default: start with the oldest letter.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// Reads a page of the selected letters. All pages together have each letter once. A letter that arrives while the pages
    /// are read may be on a later page, or on none.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let client = yadtq::Client::embedded();
    /// let page = client.admin().dead_letters().task("add").limit(50).page().await?;
    /// for letter in &page.letters {
    ///     println!("{} {}: {}", letter.place, letter.reason, letter.error);
    /// }
    /// assert_eq!(page.next, None);
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// Kafka does not answer, or the limit or the cursor is wrong.
    pub async fn page(self) -> Result<DeadLetterPage, Error> {
        if !(1..=MAX_PAGE_LETTERS).contains(&self.limit) {
            return Err(Error::config("limit", format!("a page has 1 to {MAX_PAGE_LETTERS} letters")));
        }
        let limit = self.limit;
        let mut walk = self.walk().await?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while letters.len() < limit && bytes < MAX_PAGE_BYTES {
            let Some(letter) = walk.next().await? else { break };
            bytes += letter.size();
            letters.push(letter);
        }
        Ok(DeadLetterPage { letters, next: walk.cursor() })
    }

    /// Reads all selected letters that exist now, oldest first. It needs little memory, however many there are.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
    /// let mut walk = client.admin().dead_letters().queue("mail").walk().await?;
    /// while let Some(letter) = walk.next().await? {
    ///     println!("{:?}: {}", letter.id, letter.error);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Kafka does not answer, or the cursor is wrong.
    pub async fn walk(self) -> Result<DeadLetterWalk, Error> {
        let from = self.cursor.as_deref().map(read_cursor).transpose()?.unwrap_or_default();
        let topic = self.config.namespace.dead_topic().into();
        let walk = Walk::start(&*self.broker, &topic, &from).await?;
        let ledger = Ledger::load(&*self.broker, &self.config.namespace).await?;
        let now_ms = self.config.clock.now_ms();
        let (broker, config, filter) = (self.broker, self.config, self.filter);
        let (left, is_whole) = (Positions::new(), from.is_empty());
        Ok(DeadLetterWalk { broker, config, walk, ledger, filter, now_ms, left, is_whole })
    }
}

impl DeadLetters {
    /// Whether all letters are selected.
    pub(super) fn is_all(&self) -> bool {
        self.filter == Filter::default() && self.cursor.is_none()
    }
}

impl DeadLetterWalk {
    /// The next letter; `None`: the walk has returned all letters that existed when it began.
    ///
    /// # Errors
    /// Kafka does not answer. Calling it again continues with the same letter.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, Error> {
        while let Some(record) = self.walk.next().await? {
            let place = Place { partition: record.partition, offset: record.offset };
            if self.ledger.has(place, record.timestamp_ms) {
                continue;
            }
            if !self.filter.may_name(&record) {
                self.leave(place);
                continue;
            }
            let letter = DeadLetter::read(record, &self.config.namespace);
            if self.filter.fits(&letter, self.now_ms) {
                return Ok(Some(letter));
            }
            self.leave(place);
        }
        Ok(None)
    }

    /// The next letters; empty at the end of the walk.
    pub(super) async fn batch(&mut self, limit: BatchLimit) -> Result<Vec<DeadLetter>, Error> {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while letters.len() < limit.letters && bytes < limit.bytes {
            let Some(letter) = self.next().await? else { break };
            bytes += letter.size();
            letters.push(letter);
        }
        Ok(letters)
    }

    /// Records that a letter is not settled, so that it is not deleted.
    pub(super) fn leave(&mut self, place: Place) {
        let first = self.left.entry(place.partition).or_insert(place.offset);
        *first = place.offset.min(*first);
    }

    /// The offset of each partition below which every letter is settled, once the walk has ended. The caller has settled all
    /// letters that the walk returned, except those passed to [`leave`](Self::leave). Empty if the walk began at a cursor.
    pub(super) fn settled_below(&self) -> Positions {
        if !self.is_whole || self.walk.positions().is_some() {
            return Positions::new();
        }
        let below = |end: Place| {
            (end.partition, self.left.get(&end.partition).map_or(end.offset, |&left| left.min(end.offset)))
        };
        self.walk.ends().map(below).collect()
    }

    /// Deletes records of the ledger that are only about letters which were deleted.
    pub(super) async fn tidy(&self) {
        self.ledger.tidy(&*self.broker, &self.config.namespace).await;
    }

    /// A [cursor](DeadLetters::cursor) with which another walk can continue; `None`: the walk has ended.
    #[must_use]
    pub fn cursor(&self) -> Option<String> {
        let places = |positions: Positions| {
            let place = |(&partition, &offset): (&i32, &i64)| Place { partition, offset }.to_string();
            positions.iter().map(place).collect::<Vec<_>>().join(",")
        };
        self.walk.positions().map(places)
    }
}

impl std::fmt::Debug for DeadLetterWalk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterWalk").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Filter {
    fn fits(&self, letter: &DeadLetter, now_ms: u64) -> bool {
        let is =
            |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|wanted| value == Some(wanted));
        let age = letter.at.map(|at| Duration::from_millis(now_ms.saturating_sub(times::ms(at))));
        (self.ids.is_empty() || self.names(letter))
            && is(&self.task, letter.task.as_deref())
            && is(&self.queue, letter.queue.as_deref())
            && is(&self.reason, Some(&letter.reason))
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self.newer_than.is_none_or(|limit| age.is_some_and(|age| age <= limit))
    }

    /// Whether the record may be one of the wanted ids or places. Only its key, which is a task's id, is compared, so that
    /// other records need not be read.
    fn may_name(&self, record: &Incoming) -> bool {
        let place = Place { partition: record.partition, offset: record.offset };
        self.ids.is_empty()
            || record.key.as_deref().is_some_and(|key| std::str::from_utf8(key).is_ok_and(|key| self.ids.contains(key)))
            || self.places.contains(&place)
    }

    fn names(&self, letter: &DeadLetter) -> bool {
        letter.id.as_ref().is_some_and(|id| self.ids.contains(id.as_str())) || self.places.contains(&letter.place)
    }
}

fn read_cursor(text: &str) -> Result<Positions, Error> {
    let place = |text: &str| text.parse().map(|Place { partition, offset }| (partition, offset));
    let places = text.split(',').map(place).collect::<Result<_, _>>();
    places
        .map_err(|_| Error::config("cursor", format!("`{text}` is not a cursor; take the cursor from an earlier page")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_selects_letters_that_match_all_of_it() {
        let letter = |id: &str, at: Option<u64>| {
            let value = format!(r#"{{"task-id":"{id}","task":"add","args":[]}}"#).into();
            let headers = [("yadtq-reason", "arguments"), ("yadtq-source-topic", "yadtq.mail")];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.into())).into();
            let record =
                crate::broker::Incoming { partition: 1, offset: 2, timestamp_ms: at, key: None, value, headers };
            DeadLetter::read(record, &crate::Namespace::default())
        };
        let second = Duration::from_secs(1);
        let wanted = |text: &str| Some(text.to_owned());
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        let all = Filter::default();
        for (filter, fits) in [
            (all.clone(), true),
            (Filter { task: wanted("add"), queue: wanted("mail"), reason: wanted("arguments"), ..all.clone() }, true),
            (Filter { task: wanted("add"), queue: wanted("default"), ..all.clone() }, false),
            (Filter { task: wanted("ad"), ..all.clone() }, false),
            (Filter { reason: wanted("deliveries"), ..all.clone() }, false),
            (Filter { ids: ids(&["y", "x"]), ..all.clone() }, true),
            (Filter { ids: ids(&["1/2"]), places: [Place { partition: 1, offset: 2 }].into(), ..all.clone() }, true),
            (Filter { ids: ids(&["1/3"]), ..all.clone() }, false),
            (Filter { ids: ids(&["x"]), task: wanted("sub"), ..all.clone() }, false),
            (Filter { older_than: Some(second), ..all.clone() }, true),
            (Filter { older_than: Some(5 * second), ..all.clone() }, false),
            (Filter { newer_than: Some(5 * second), ..all.clone() }, true),
            (Filter { newer_than: Some(second), ..all.clone() }, false),
        ] {
            assert_eq!(filter.fits(&letter("x", Some(5_000)), 9_000), fits, "{filter:?}");
        }
        let timeless = letter("x", None);
        assert!(!Filter { older_than: Some(second), ..all.clone() }.fits(&timeless, 9_000));
        assert!(all.fits(&timeless, 9_000));
    }

    #[test]
    fn cursors_are_checked() {
        assert_eq!(read_cursor("0/5,11/9").unwrap(), Positions::from([(0, 5), (11, 9)]));
        for text in ["", "x", "1/2,", "1/2 3/4"] {
            assert!(read_cursor(text).unwrap_err().to_string().starts_with("cursor: "), "{text}");
        }
    }
}
