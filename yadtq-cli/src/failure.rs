//! Why a command failed: one line for people, with a remedy, and the exit code.

use std::{io, time::Duration};

use thiserror::Error;
use yadtq::{BrokerError, Error, Status, StoreError, TaskId};

use crate::{exit::Exit, message, time};

const KAFKA_REMEDY: &str = "check that kafka runs there, or name another server with --kafka or YADTQ_KAFKA";
/// What to do if Redis does not answer.
pub(crate) const REDIS_REMEDY: &str = "check that redis runs there, or name another server with --redis or YADTQ_REDIS";

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// An error of the library.
    #[error(transparent)]
    Yadtq(#[from] Error),
    /// The arguments or the input are wrong; the text names the remedy.
    #[error("{0}")]
    Input(String),
    /// The command did not wait, and the task had not ended.
    #[error("task {id} has not ended yet, its status is {status}; use --wait to wait for it")]
    NotEnded { id: TaskId, status: Status },
    /// The command waited, and the task did not end in time.
    #[error("task {id} did not end within {}, its status is {status}; it continues, and `yadtq result {id} --wait` waits for it", time::exact(*after))]
    StillNotEnded { id: TaskId, status: Status, after: Duration },
    /// No dead letter has this task id or place.
    #[error(
        "no dead letter with task id or place {0}; `yadtq dlq list` lists those that were not replayed or purged yet"
    )]
    NoLetter(String),
    /// `ping` found servers that do not work, and has already printed why.
    #[error("cannot use {0}; see the remedy above")]
    Unusable(&'static str),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The async runtime could not be started.
    #[error("cannot start the async runtime: {0}")]
    Runtime(io::Error),
}

impl Failure {
    /// Writes the error and its remedy to stderr, and returns the exit code.
    pub(crate) fn report(&self) -> Exit {
        if let Self::Output(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            // The reader has closed the pipe because it needs no more, as `head` does.
            return Exit::Done;
        }
        message::error(&match self.remedy() {
            Some(remedy) => format!("{self}; {remedy}"),
            None => self.to_string(),
        });
        self.exit()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Yadtq(error) => exit_of(error),
            Self::Input(_) => Exit::Usage,
            Self::NotEnded { .. } | Self::StillNotEnded { .. } => Exit::NotEnded,
            Self::NoLetter(_) => Exit::NotFound,
            Self::Unusable(_) => Exit::Server,
            Self::Output(_) | Self::Runtime(_) => Exit::Other,
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Yadtq(error) => remedy(error),
            _ => None,
        }
    }
}

/// The exit code of an error of the library.
fn exit_of(error: &Error) -> Exit {
    match error {
        Error::TaskFailed { .. } | Error::Revoked { .. } | Error::Expired { .. } | Error::Purged { .. } => {
            Exit::TaskFailed
        }
        Error::Config { .. } | Error::Argument { .. } | Error::TooLarge { .. } => Exit::Usage,
        Error::NotFound { .. } | Error::ResultExpired { .. } => Exit::NotFound,
        Error::WaitTimeout { .. } => Exit::NotEnded,
        Error::Unacknowledged { source: BrokerError::TooLarge { .. }, .. } => Exit::Usage,
        Error::Store(StoreError::Address { .. }) => Exit::Usage,
        Error::Unacknowledged { .. } | Error::Unique { .. } | Error::Broker(_) | Error::Store(_) => Exit::Server,
        // The value in Redis is not a result that YADTQ has written.
        Error::ResultType { .. } => Exit::Server,
        _ => Exit::Other,
    }
}

/// What to do about an error whose own text does not say it.
pub(crate) fn remedy(error: &Error) -> Option<&'static str> {
    match error {
        Error::Broker(source) | Error::Unacknowledged { source, .. } => match source {
            BrokerError::Timeout { .. } => Some(KAFKA_REMEDY),
            BrokerError::Refused(_) => Some("check YADTQ_KAFKA_CONF and the permissions of this user in kafka"),
            BrokerError::TooLarge { .. } => Some("send a reference to the data instead"),
            _ => None,
        },
        Error::Store(StoreError::Unavailable(_)) | Error::Unique { source: StoreError::Unavailable(_), .. } => {
            Some(REDIS_REMEDY)
        }
        Error::Store(StoreError::Refused(_)) => Some("check the user and password in --redis or YADTQ_REDIS"),
        _ => None,
    }
}
