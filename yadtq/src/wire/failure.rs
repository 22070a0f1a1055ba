//! How a failed task's error is written to the store and read back.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// Its time was over before it could run.
    Expired,
    /// It was asked to end.
    Revoked,
    /// The returned value could not be stored: not serializable as JSON, or too large.
    Result,
    /// An operator has disabled tasks of its name.
    Disabled,
    /// A kind that the task chose, with [`TaskError::kind`](crate::TaskError::kind).
    Custom(String),
}

impl ErrorKind {
    const NAMED: [(Self, &'static str); 10] = [
        (Self::Error, "error"),
        (Self::Panic, "panic"),
        (Self::Timeout, "timeout"),
        (Self::Arguments, "arguments"),
        (Self::UnknownTask, "unknown-task"),
        (Self::Deliveries, "deliveries"),
        (Self::Expired, "expired"),
        (Self::Revoked, "revoked"),
        (Self::Result, "result"),
        (Self::Disabled, "disabled"),
    ];

    /// The kind as the store spells it.
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

/// The error of a failed task, as the store keeps it.
///
/// ```
/// let failure: yadtq::Failure =
///     serde_json::from_str(r#"{"kind": "panic", "message": "index out of bounds", "attempt": 1}"#)?;
/// assert_eq!(failure.to_string(), "panic: index out of bounds");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// What made it fail.
    pub kind: ErrorKind,
    /// The error's text with its sources, at most [`Failure::MAX_MESSAGE`] bytes.
    pub message: String,
    /// The attempt that failed, from 1.
    pub attempt: u32,
}

impl Failure {
    /// Longer messages are cut, in bytes.
    pub const MAX_MESSAGE: usize = 4_096;

    /// Longer kinds are cut, in bytes.
    pub const MAX_KIND: usize = 128;

    /// A failure with its texts cut to size.
    #[must_use]
    pub(crate) fn new(kind: ErrorKind, message: String, attempt: u32) -> Self {
        let kind = match kind {
            ErrorKind::Custom(kind) => ErrorKind::Custom(cut(kind, Self::MAX_KIND)),
            named => named,
        };
        Self { kind, message: cut(message, Self::MAX_MESSAGE), attempt }
    }

    /// The message as it may be logged: what does not fit a parameter is an argument, and those are not logged.
    pub(crate) fn logged(&self) -> &str {
        match self.kind {
            ErrorKind::Arguments => self.message.split_once(": ").map_or(&*self.message, |(parameter, _)| parameter),
            _ => &self.message,
        }
    }

    /// The failure as JSON text.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and a number are always JSON")
    }
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate((0..=max - 3).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
        text.push_str("...");
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}
