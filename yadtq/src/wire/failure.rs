//! The error of a failed task, as it is written to Redis and read back.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::text::cut;

/// What made a task fail.
///
/// ```
/// use yadtq::ErrorKind;
///
/// assert_eq!(ErrorKind::from("timeout"), ErrorKind::Timeout);
/// assert_eq!(ErrorKind::from("card-declined"), ErrorKind::Custom("card-declined".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The function returned an error.
    Error,
    /// The function panicked.
    Panic,
    /// The function ran longer than its timeout.
    Timeout,
    /// The arguments do not fit the function's parameters.
    Arguments,
    /// No worker that saw the task has a function of its name.
    UnknownTask,
    /// Too many workers died while they ran it.
    Deliveries,
    /// The task expired before it could run.
    Expired,
    /// The task was revoked.
    Revoked,
    /// The task waited in a queue that was purged.
    Purged,
    /// The returned value could not be stored: it does not serialize to JSON, or is too large.
    Result,
    /// An operator has disabled the task.
    Disabled,
    /// The task's record can't be published: it is larger than the topic of its queue accepts, or its `seq` can't grow any more.
    Unpublishable,
    /// A kind that the task chose, with [`TaskError::kind`](crate::TaskError::kind).
    Custom(String),
}

impl ErrorKind {
    const NAMED: [(Self, &'static str); 12] = [
        (Self::Error, "error"),
        (Self::Panic, "panic"),
        (Self::Timeout, "timeout"),
        (Self::Arguments, "arguments"),
        (Self::UnknownTask, "unknown-task"),
        (Self::Deliveries, "deliveries"),
        (Self::Expired, "expired"),
        (Self::Revoked, "revoked"),
        (Self::Purged, "purged"),
        (Self::Result, "result"),
        (Self::Disabled, "disabled"),
        (Self::Unpublishable, "unpublishable"),
    ];

    /// The kind as text, such as `unknown-task`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Custom(kind) => kind,
            named => Self::NAMED.iter().find(|(kind, _)| kind == named).map_or("error", |(_, name)| name),
        }
    }
}

impl From<&str> for ErrorKind {
    fn from(text: &str) -> Self {
        let named = Self::NAMED.into_iter().find(|(_, name)| *name == text);
        named.map_or_else(|| Self::Custom(text.to_owned()), |(kind, _)| kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Self::from(&*text))
    }
}

/// The error of a failed task.
///
/// ```
/// let failure: yadtq::Failure =
///     serde_json::from_str(r#"{"kind": "panic", "message": "index out of bounds", "attempt": 1}"#)?;
/// assert_eq!(failure.to_string(), "panic: index out of bounds");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Uncut")]
#[non_exhaustive]
pub struct Failure {
    /// What made the task fail.
    pub kind: ErrorKind,
    /// The text of the error and of its sources, at most [`Failure::MAX_MESSAGE`] bytes.
    pub message: String,
    /// The attempt that failed, from 1.
    pub attempt: u32,
}

impl Failure {
    /// Longest message, in bytes. Longer ones are cut.
    pub const MAX_MESSAGE: usize = 4_096;

    /// Longest kind, in bytes. Longer ones are cut.
    pub const MAX_KIND: usize = 128;

    /// A failure. Texts that are too long are cut.
    #[must_use]
    pub(crate) fn new(kind: ErrorKind, message: String, attempt: u32) -> Self {
        let kind = match kind {
            ErrorKind::Custom(kind) => ErrorKind::Custom(cut(kind, Self::MAX_KIND)),
            named => named,
        };
        Self { kind, message: cut(message, Self::MAX_MESSAGE), attempt }
    }

    /// The message as it may be logged. If an argument does not fit, its value is left out, because arguments are not logged.
    pub(crate) fn logged(&self) -> &str {
        match self.kind {
            ErrorKind::Arguments => self.message.split_once(": ").map_or(&*self.message, |(parameter, _)| parameter),
            _ => &self.message,
        }
    }

    /// Reads what [`to_json`](Self::to_json) has written. Another text becomes the message. `attempt`: that of such a failure.
    pub(crate) fn read(text: &str, attempt: u32) -> Self {
        let other = |_| Self::new(ErrorKind::Deliveries, text.to_owned(), attempt);
        serde_json::from_str(text).unwrap_or_else(other)
    }

    /// The failure as JSON text.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and a number are always JSON")
    }
}

/// A failure as it was written, perhaps by a program that cuts nothing.
#[derive(Deserialize)]
struct Uncut {
    kind: ErrorKind,
    message: String,
    attempt: u32,
}

impl From<Uncut> for Failure {
    fn from(Uncut { kind, message, attempt }: Uncut) -> Self {
        Self::new(kind, message, attempt)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}
