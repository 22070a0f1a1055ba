//! A dead letter: the original record byte for byte, and why it is here in the headers.

use bytes::Bytes;

use super::{Headers, failure::ErrorKind};

/// Why a record became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The record is not a task.
    Unreadable,
    /// No worker that saw it knows a task of that name.
    UnknownTask,
    /// The arguments do not fit the task's parameters.
    Arguments,
    /// Too many workers died while they ran it.
    Deliveries,
    /// Its last attempt failed.
    Retries,
    /// An operator has disabled tasks of its name.
    Disabled,
    /// It failed, and said that another attempt has no point.
    Fatal,
}

impl Reason {
    /// The reason that belongs to a task's error; `has_attempts`: it could have been tried again.
    #[must_use]
    pub fn of(kind: &ErrorKind, has_attempts: bool) -> Self {
        match kind {
            ErrorKind::UnknownTask => Self::UnknownTask,
            ErrorKind::Deliveries => Self::Deliveries,
            ErrorKind::Arguments => Self::Arguments,
            ErrorKind::Disabled => Self::Disabled,
            _ if has_attempts => Self::Fatal,
            _ => Self::Retries,
        }
    }

    /// The reason as the header spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnknownTask => "unknown-task",
            Self::Arguments => "arguments",
            Self::Disabled => "disabled",
            Self::Deliveries => "deliveries",
            Self::Retries => "retries",
            Self::Fatal => "fatal",
        }
    }
}

/// Header names of a dead letter. The original headers stay beside them.
pub mod header {
    /// Why the record is here.
    pub const REASON: &str = "yadtq-reason";
    /// The error's text.
    pub const ERROR: &str = "yadtq-error";
    /// Attempts made.
    pub const ATTEMPTS: &str = "yadtq-attempts";
    /// Crashes seen.
    pub const DELIVERIES: &str = "yadtq-deliveries";
    /// The topic it came from.
    pub const TOPIC: &str = "yadtq-source-topic";
    /// The partition it came from.
    pub const PARTITION: &str = "yadtq-source-partition";
    /// The offset it had there.
    pub const OFFSET: &str = "yadtq-source-offset";
    /// All that say something of the dead letter itself.
    pub const ALL: [&str; 8] = [REASON, ERROR, ATTEMPTS, DELIVERIES, TOPIC, PARTITION, OFFSET, CUT];
    /// Present if the value had to be cut: its original length in bytes.
    pub const CUT: &str = "yadtq-cut-from-bytes";
}

/// What is to be said about a dead record.
#[derive(Clone, Debug)]
pub struct Epitaph {
    /// Why it is dead.
    pub reason: Reason,
    /// The error's text.
    pub error: String,
    /// Attempts made.
    pub attempts: u32,
    /// Crashes seen.
    pub deliveries: u32,
}

impl Epitaph {
    /// The headers of the dead letter: the record's own, and what is to be said.
    #[must_use]
    pub fn headers(&self, source: &Source<'_>, original: &Headers) -> Headers {
        let mut headers = original.clone();
        headers.retain(|(name, _)| !name.starts_with("yadtq-") || name == "yadtq-signature");
        for (name, value) in [
            (header::REASON, self.reason.as_str().to_owned()),
            (header::ERROR, self.error.clone()),
            (header::ATTEMPTS, self.attempts.to_string()),
            (header::DELIVERIES, self.deliveries.to_string()),
            (header::TOPIC, source.topic.to_owned()),
            (header::PARTITION, source.partition.to_string()),
            (header::OFFSET, source.offset.to_string()),
        ] {
            headers.push((name.to_owned(), Bytes::from(value)));
        }
        headers
    }
}

/// Where a record was read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}
