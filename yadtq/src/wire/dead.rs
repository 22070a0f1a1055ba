//! A dead letter: the original record byte for byte, with headers that say why it could not be run.

use bytes::Bytes;

use super::{
    Headers,
    failure::{ErrorKind, Failure},
};
use crate::core::text::cut;

/// Why a record became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The record is not a task.
    Unreadable,
    /// No worker that saw it knows a task of that name.
    UnknownTask,
    /// The arguments do not fit the task's parameters.
    Arguments,
    /// Too many workers died while they ran it.
    Deliveries,
    /// The last attempt of the task failed.
    Retries,
    /// An operator has disabled the task.
    Disabled,
    /// The task's next record can't be published.
    Unpublishable,
    /// The task failed with an error that is not retried, although attempts were left.
    Fatal,
}

impl Reason {
    /// The reason for a task's error. `has_attempts`: whether attempts were left.
    #[must_use]
    pub(crate) fn of(kind: &ErrorKind, has_attempts: bool) -> Self {
        match kind {
            ErrorKind::UnknownTask => Self::UnknownTask,
            ErrorKind::Deliveries => Self::Deliveries,
            ErrorKind::Arguments => Self::Arguments,
            ErrorKind::Disabled => Self::Disabled,
            ErrorKind::Unpublishable => Self::Unpublishable,
            _ if has_attempts => Self::Fatal,
            _ => Self::Retries,
        }
    }

    /// The reason as the header spells it.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnknownTask => "unknown-task",
            Self::Arguments => "arguments",
            Self::Disabled => "disabled",
            Self::Unpublishable => "unpublishable",
            Self::Deliveries => "deliveries",
            Self::Retries => "retries",
            Self::Fatal => "fatal",
        }
    }
}

/// Names of the headers of ours. All but the first two are those that a dead letter has besides the original ones.
pub(crate) mod header {
    /// What the names of all headers of ours begin with.
    pub(crate) const PREFIX: &str = "yadtq-";
    /// The id of the task that sent this one.
    pub(crate) const PARENT: &str = "yadtq-parent-id";
    /// The id of the task that was sent from outside a task, and from which this one descends.
    pub(crate) const ROOT: &str = "yadtq-root-id";
    /// Headers of ours that a task keeps. `yadtq-signature` is reserved.
    pub(super) const KEPT: [&str; 3] = [PARENT, ROOT, "yadtq-signature"];
    /// Why the record became a dead letter: [`Reason::as_str`](super::Reason::as_str).
    pub(crate) const REASON: &str = "yadtq-reason";
    /// The text of the error.
    pub(crate) const ERROR: &str = "yadtq-error";
    /// Number of attempts that were made.
    pub(crate) const ATTEMPTS: &str = "yadtq-attempts";
    /// Number of workers that died while they ran the task.
    pub(crate) const DELIVERIES: &str = "yadtq-deliveries";
    /// The topic from which the record came.
    pub(crate) const TOPIC: &str = "yadtq-source-topic";
    /// The partition from which the record came.
    pub(crate) const PARTITION: &str = "yadtq-source-partition";
    /// The offset that the record had in that partition.
    pub(crate) const OFFSET: &str = "yadtq-source-offset";
    /// All headers that a dead letter has besides the original ones.
    pub(crate) const ALL: [&str; 8] = [REASON, ERROR, ATTEMPTS, DELIVERIES, TOPIC, PARTITION, OFFSET, CUT];
    /// The original length of the value in bytes. The header is present only if the value was cut.
    pub(crate) const CUT: &str = "yadtq-cut-from-bytes";
}

/// Why a record became a dead letter, and how often its task ran before.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// Why the record is a dead letter.
    pub reason: Reason,
    /// The text of the error. It is cut if it is long.
    pub error: String,
    /// Number of attempts that were made.
    pub attempts: u32,
    /// Number of workers that died while they ran the task.
    pub deliveries: u32,
}

impl Cause {
    /// The headers of the dead letter: the original ones, and those of [`header`].
    #[must_use]
    pub(crate) fn headers(&self, source: &Source<'_>, original: &Headers) -> Headers {
        let mut headers = original.clone();
        headers.retain(|(name, _)| !name.starts_with(header::PREFIX) || header::KEPT.contains(&name.as_str()));
        for (name, value) in [
            (header::REASON, self.reason.as_str().to_owned()),
            (header::ERROR, cut(self.error.clone(), Failure::MAX_MESSAGE)),
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

/// The place from which a record was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}
