//! Checked names: task ids, worker and client ids, queues, namespaces.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use thiserror::Error;
use uuid::Uuid;

use super::{
    as_text::as_text,
    priority::Priority,
    text::{Escaped, cut},
};

/// Why a name was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// A task id is empty or too long.
    #[error("a task id has 1 to {max} bytes, this one has {len}", max = TaskId::MAX_BYTES)]
    TaskIdLength {
        /// The length of the refused id in bytes.
        len: usize,
    },
    /// The name has a character that is not allowed, does not start with a letter or digit, or is too long.
    #[error("{what} `{name}` must match [a-z0-9][a-z0-9-]* and have at most 100 characters")]
    Syntax {
        /// What the name is for: `queue` or `namespace`.
        what: &'static str,
        /// The refused name, cut if it is long.
        name: String,
    },
    /// YADTQ uses this queue name for its own topics.
    #[error("queue name `{name}` is reserved; choose another than dead, delayed, events, control")]
    Reserved {
        /// The refused name.
        name: String,
    },
}

/// The identity of a task: 1 to 128 bytes of UTF-8. Ids that YADTQ makes are UUIDv7, so they sort by time of creation.
///
/// ```
/// use yadtq::TaskId;
///
/// let ours = TaskId::new();
/// let foreign: TaskId = "d5750c0e-ed82".parse()?;
/// assert_ne!(ours, foreign);
/// # Ok::<(), yadtq::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// A new unique id.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a default that differs at every call would surprise")]
    pub fn new() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self(Arc::from(&*Uuid::now_v7().hyphenated().encode_lower(&mut buffer)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id for a line of a log.
    pub(crate) fn shown(&self) -> Escaped<'_> {
        Escaped(&self.0)
    }

    /// When the id was made, in milliseconds since the Unix epoch. `None` if it is not a UUIDv7.
    #[must_use]
    pub fn created_ms(&self) -> Option<u64> {
        let time = Uuid::try_parse(&self.0).ok().filter(|id| id.get_version_num() == 7)?.get_timestamp()?;
        let (seconds, nanos) = time.to_unix();
        Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
    }
}

impl FromStr for TaskId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.len() {
            1..=Self::MAX_BYTES => Ok(Self(Arc::from(text))),
            len => Err(NameError::TaskIdLength { len }),
        }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for TaskId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The identity of a worker. It is new for every start of the process.
pub(crate) type WorkerId = Arc<str>;

/// The identity of a client. It is part of the name of the client's reply channel.
pub(crate) type ClientId = Arc<str>;

/// A checked queue name: `[a-z0-9][a-z0-9-]*`, at most 100 characters, and none of the reserved names `dead`,
/// `delayed`, `events` and `control`. Default: `default`.
///
/// ```
/// use yadtq::Queue;
///
/// assert_eq!(Queue::default().as_str(), "default");
/// assert!("mail".parse::<Queue>().is_ok());
/// assert!("dead".parse::<Queue>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue(Arc<str>);

impl Queue {
    const RESERVED: [&'static str; 4] = ["dead", "delayed", "events", "control"];

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl FromStr for Queue {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if Self::RESERVED.contains(&name) {
            return Err(NameError::Reserved { name: name.to_owned() });
        }
        checked("queue", name).map(Self)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The prefix of the names of all topics, groups and keys of one installation: `[a-z0-9][a-z0-9-]*`, at most 100
/// characters. Default: `yadtq`.
///
/// ```
/// use yadtq::Namespace;
///
/// assert_eq!(Namespace::default().as_str(), "yadtq");
/// assert!("Shop.EU".parse::<Namespace>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of a queue's tasks of normal priority.
    pub(crate) fn topic(&self, queue: &Queue) -> String {
        format!("{}.{queue}", self.0)
    }

    /// The topic of a queue's tasks of a priority.
    pub(crate) fn topic_of(&self, queue: &Queue, priority: Priority) -> String {
        match priority {
            Priority::Normal => self.topic(queue),
            Priority::High | Priority::Low => format!("{}.{queue}.{priority}", self.0),
        }
    }

    /// The dead-letter topic.
    pub(crate) fn dead_topic(&self) -> String {
        format!("{}.dead", self.0)
    }

    /// The topic that says which dead letters have been dealt with. No queue can have this name.
    pub(crate) fn settled_topic(&self) -> String {
        format!("{}.dead.settled", self.0)
    }

    /// The topic of tasks that wait until they are due.
    pub(crate) fn delayed_topic(&self) -> String {
        format!("{}.delayed", self.0)
    }

    /// The topic of the operators' controls, which every worker reads.
    pub(crate) fn control_topic(&self) -> String {
        format!("{}.control", self.0)
    }

    /// Whether the topic is compacted: it keeps only the latest record of each key.
    pub(crate) fn is_compacted(&self, topic: &str) -> bool {
        topic == self.delayed_topic() || topic == self.control_topic()
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Arc::from("yadtq"))
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        checked("namespace", name).map(Self)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

as_text!(TaskId, Queue, Namespace);

/// Longest name of a queue or namespace.
const MAX_NAME_CHARS: usize = 100;

fn checked(what: &'static str, name: &str) -> Result<Arc<str>, NameError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_CHARS || name.starts_with('-') || !name.chars().all(allowed) {
        return Err(NameError::Syntax { what, name: cut(name.to_owned(), 2 * MAX_NAME_CHARS) });
    }
    Ok(Arc::from(name))
}
