//! Is Kafka there? One answer for all clients of a broker, told when it changes.
//!
//! librdkafka tells when a connection breaks, not when one is made, and one broker of several may well be away. So an
//! error only raises the question, and a metadata request answers it:
//!
//! ```text
//!  error of any client ──► question ──► metadata ── answered ──► broker_connected     (if it was not)
//!                                          ▲ └───── no answer ──► broker_disconnected  (if it was not)
//!                                          └──────────┘
//! ```

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tracing::{debug, info, warn};

use super::super::BrokerError;

/// Longest wait for the answer to the question.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of the connection to Kafka.
#[derive(Debug)]
pub(super) struct Connection {
    bootstrap: String,
    state: Mutex<State>,
    question: SyncSender<()>,
}

#[derive(Debug, Default)]
struct State {
    connected: Option<bool>,
    last_error: Option<(Code, String)>,
}

impl Connection {
    /// The connection, and the end where its questions come out.
    pub(super) fn new(bootstrap: String) -> (Arc<Self>, Receiver<()>) {
        let (question, questions) = sync_channel(1);
        (Arc::new(Self { bootstrap, state: Mutex::default(), question }), questions)
    }

    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Asks whether Kafka is still there.
    pub(super) fn doubt(&self) {
        // Full means that the question is being asked already.
        let _ = self.question.try_send(());
    }

    /// An error for something that was not done. What is not plainly a refusal may or may not have happened.
    pub(super) fn error(&self, code: Code, what: &str, after: Duration) -> BrokerError {
        if is_refusal(code) {
            return BrokerError::Refused(format!("{what}: {code}"));
        }
        self.doubt();
        match &self.state().last_error {
            Some((code, reason)) if is_refusal(*code) => BrokerError::Refused(reason.clone()),
            Some((_, reason)) => BrokerError::Timeout { after, detail: format!("{what}: {code}; {reason}") },
            None => BrokerError::Timeout { after, detail: format!("{what}: {code} (from {})", self.bootstrap) },
        }
    }

    fn trouble(&self, code: Code, reason: &str) {
        if !is_about_connection(code) {
            return;
        }
        // "All brokers are down" comes last and says least.
        if code != Code::AllBrokersDown {
            self.state().last_error = Some((code, reason.to_owned()));
        }
        self.doubt();
    }

    fn answered(&self, answered: bool) {
        let mut state = self.state();
        let changed = state.connected.replace(answered) != Some(answered);
        if answered {
            state.last_error = None;
        }
        if changed && answered {
            info!(event = "broker_connected", server = self.bootstrap, "kafka is there");
        } else if changed {
            let error = state.last_error.as_ref().map_or("no answer", |(_, reason)| reason);
            warn!(event = "broker_disconnected", server = self.bootstrap, error, "kafka is not there");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the questions, until the connection is dropped or there is nobody left to `ask`. Blocks.
pub(super) fn watch(questions: &Receiver<()>, ask: impl Fn(Duration) -> Option<(Arc<Connection>, bool)>) {
    loop {
        // While Kafka is away the request itself waits for it, so this is no busy loop.
        loop {
            let Some((connection, answered)) = ask(PATIENCE) else { return };
            connection.answered(answered);
            if answered {
                break;
            }
        }
        if questions.recv().is_err() {
            return;
        }
    }
}

/// Passes what librdkafka tells to `tracing` and to the connection.
#[derive(Clone, Debug)]
pub(super) struct Ears(pub(super) Arc<Connection>);

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, "{reason}");
        self.0.trouble(error.rdkafka_error_code().unwrap_or(Code::Fail), reason);
    }
}

fn is_about_connection(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
    )
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::UnsupportedSASLMechanism
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidArgument
            | Code::InvalidRequest
            | Code::PolicyViolation
            | Code::InvalidRecord
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{cell::RefCell, io};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn the_status_is_told_when_it_changes_and_only_then() {
        let (connection, questions) = Connection::new("kafka:9092".to_owned());
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        // There, there, away for three questions, there again.
        let script = RefCell::new(vec![true, false, false, false, true, true]);
        let ask = |_| {
            connection.trouble(Code::BrokerTransportFailure, "kafka:9092/1: connection refused");
            Some((Arc::clone(&connection), script.borrow_mut().pop()?))
        };
        tracing::subscriber::with_default(subscriber, || watch(&questions, ask));

        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let events: Vec<_> = text.lines().map(|line| line.split("event=").nth(1).unwrap()).collect();
        let connected = r#""broker_connected" server="kafka:9092""#;
        let lost = r#""broker_disconnected" server="kafka:9092" error="kafka:9092/1: connection refused""#;
        assert_eq!(events, [connected, lost, connected]);
    }

    #[test]
    fn a_refusal_is_told_as_one() {
        let (connection, _questions) = Connection::new("kafka:9092".to_owned());
        let error = || connection.error(Code::OperationTimedOut, "ping", PATIENCE);
        assert!(error().to_string().contains("kafka:9092"));
        connection.trouble(Code::AllBrokersDown, "1/1 brokers are down");
        connection.trouble(Code::Authentication, "kafka:9092: invalid credentials");
        assert!(matches!(error(), BrokerError::Refused(reason) if reason.contains("invalid credentials")));
        connection.answered(true);
        assert!(matches!(error(), BrokerError::Timeout { .. }));
    }
}
