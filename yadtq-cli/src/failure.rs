//! Why a command did not do as asked: one line for people, with the remedy, and the exit code.

use std::{io, time::Duration};

use thiserror::Error;
use yadtq::{BrokerError, Error, Status, StoreError, TaskId};

use crate::{exit::Exit, output, time};

const KAFKA_REMEDY: &str = "check that kafka runs there, or name another with --kafka or YADTQ_KAFKA";
/// What to do when Redis does not answer.
pub(crate) const REDIS_REMEDY: &str = "check that redis runs there, or name another with --redis or YADTQ_REDIS";

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The library says so.
    #[error(transparent)]
    Yadtq(#[from] Error),
    /// What was typed or read is wrong; the text names the remedy.
    #[error("{0}")]
    Input(String),
    /// Asked without waiting, too early.
    #[error("task {id} has not ended yet, it is {status}; wait for it with --wait")]
    NotEnded { id: TaskId, status: Status },
    /// Waited in vain.
    #[error("task {id} had not ended after {}, it is {status}; it goes on, and `yadtq result {id} --wait` waits again", time::exact(*after))]
    StillNotEnded { id: TaskId, status: Status, after: Duration },
    /// No dead letter goes by that name.
    #[error("no dead letter of task or place {0}; `yadtq dlq list` lists those that were not replayed or purged yet")]
    NoLetter(String),
    /// `ping` has printed the findings already.
    #[error("{0} cannot be used; the remedy is above")]
    Unusable(&'static str),
    /// The answer could not be written.
    #[error("the answer cannot be written: {0}")]
    Output(io::Error),
    /// No runtime.
    #[error("the system has no resources for the command: {0}")]
    Runtime(io::Error),
}

impl Failure {
    /// Tells it on stderr.
    pub(crate) fn report(&self) -> Exit {
        if let Self::Output(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            // The reader has seen enough, as `head` does.
            return Exit::Done;
        }
        output::error(&match self.remedy() {
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

/// What an error of the library means to a script.
fn exit_of(error: &Error) -> Exit {
    match error {
        Error::TaskFailed { .. } | Error::Revoked { .. } => Exit::TaskFailed,
        Error::Config { .. } | Error::Argument { .. } | Error::TooLarge { .. } => Exit::Usage,
        Error::NotFound { .. } | Error::Expired { .. } => Exit::NotFound,
        Error::WaitTimeout { .. } => Exit::NotEnded,
        Error::Unacknowledged { source: BrokerError::TooLarge { .. }, .. } => Exit::Usage,
        Error::Store(StoreError::Address { .. }) => Exit::Usage,
        Error::Unacknowledged { .. } | Error::Unique { .. } | Error::Broker(_) | Error::Store(_) => Exit::Server,
        // The result in Redis is not what YADTQ writes there.
        Error::ResultType { .. } => Exit::Server,
        _ => Exit::Other,
    }
}

/// What to do about an error whose text does not say it.
pub(crate) fn remedy(error: &Error) -> Option<&'static str> {
    match error {
        Error::Broker(source) | Error::Unacknowledged { source, .. } => match source {
            BrokerError::Timeout { .. } => Some(KAFKA_REMEDY),
            BrokerError::Refused(_) => Some("check YADTQ_KAFKA_CONF and what kafka allows this user"),
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
