//! Whether Kafka is reachable: one answer for all clients of a broker, logged when it changes.
//!
//! librdkafka reports when a connection breaks, but not when one is made, and Kafka is reachable even if one of several
//! brokers is not. So an error only requests a probe, which is a metadata request:
//!
//! ```text
//!  error of any client ──► probe request ──► metadata ── answered ──► broker_connected     (if that is new)
//!                                               ▲ └───── no answer ──► broker_disconnected  (if that is new)
//!                                               └──────────┘
//! ```

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tracing::{debug, error, info, warn};

use super::super::BrokerError;

/// Longest wait for the answer to one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The time after which a refusal is logged again.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The state of the connection to Kafka.
#[derive(Debug)]
pub(super) struct Connection {
    bootstrap: String,
    state: Mutex<State>,
    probe_requests: SyncSender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The result of the latest probe. `None` before the first.
    is_connected: Option<bool>,
    /// The latest error since the last successful probe.
    last_error: Option<(Code, String)>,
    /// The latest refusal that was logged.
    refusal: Option<(Code, Instant)>,
}

impl Connection {
    /// The connection, and the receiver of its requests for a probe.
    pub(super) fn new(bootstrap: String) -> (Arc<Self>, Receiver<()>) {
        let (sender, receiver) = sync_channel(1);
        (Arc::new(Self { bootstrap, state: Mutex::default(), probe_requests: sender }), receiver)
    }

    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Requests a probe.
    fn request_probe(&self) {
        // A full channel means that a probe is requested already.
        let _ = self.probe_requests.try_send(());
    }

    /// The error for a request (`what`) that failed `after` this time. It is a timeout, which leaves open whether the
    /// request was carried out, unless the code is a refusal.
    pub(super) fn error(&self, code: Code, what: &str, after: Duration) -> BrokerError {
        if is_refusal(code) {
            return BrokerError::Refused(format!("{what}: {code}"));
        }
        self.request_probe();
        match &self.state().last_error {
            Some((code, reason)) if is_refusal(*code) => BrokerError::Refused(reason.clone()),
            Some((_, reason)) => BrokerError::Timeout { after, detail: format!("{what}: {code}; {reason}") },
            None => BrokerError::Timeout { after, detail: format!("{what}: {code} (from {})", self.bootstrap) },
        }
    }

    /// Notes an error of a client, and requests a probe if the error is about the connection.
    fn note_error(&self, code: Code, reason: &str) {
        if !is_about_connection(code) {
            return;
        }
        // "All brokers are down" comes after the error that names the cause.
        if code != Code::AllBrokersDown {
            self.state().last_error = Some((code, reason.to_owned()));
        }
        self.request_probe();
    }

    /// Logs an error of a client that is a refusal; the same one again after a minute.
    pub(super) fn note_refusal(&self, code: Code) {
        let is_known = |&(known, at): &(Code, Instant)| known == code && at.elapsed() < REFUSAL_LOG_INTERVAL;
        let mut state = self.state();
        if is_refusal(code) && !state.refusal.as_ref().is_some_and(is_known) {
            state.refusal = Some((code, Instant::now()));
            error!(event = "broker_refuses", server = self.bootstrap, error = %code,
                "kafka refuses what is asked of it; see the rights in the guide's page on security. Will retry");
        }
    }

    /// Notes the result of a probe, and logs it if it differs from the one before.
    fn note_probe(&self, is_connected: bool) {
        let mut state = self.state();
        let changed = state.is_connected.replace(is_connected) != Some(is_connected);
        if is_connected {
            state.last_error = None;
        }
        if changed && is_connected {
            info!(event = "broker_connected", server = self.bootstrap, "connected to kafka");
        } else if changed {
            let error = state.last_error.as_ref().map_or("no answer", |(_, reason)| reason);
            warn!(event = "broker_disconnected", server = self.bootstrap, error, "cannot reach kafka; will retry");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes once, and again for every request, until the connection is dropped or `probe` returns `None`. Blocks.
pub(super) fn run_probes(requests: &Receiver<()>, probe: impl Fn(Duration) -> Option<(Arc<Connection>, bool)>) {
    loop {
        // While Kafka is unreachable, the probe itself waits, so this is no busy loop.
        loop {
            let Some((connection, is_connected)) = probe(PROBE_TIMEOUT) else { return };
            connection.note_probe(is_connected);
            if is_connected {
                break;
            }
        }
        if requests.recv().is_err() {
            return;
        }
    }
}

/// Passes the logs and errors of a librdkafka client to `tracing` and to the connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionListener(pub(super) Arc<Connection>);

impl ClientContext for ConnectionListener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, "{reason}");
        self.0.note_error(error.rdkafka_error_code().unwrap_or(Code::Fail), reason);
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

/// Whether trying again is of no use before somebody has changed a setting or a right.
pub(super) fn is_refusal(code: Code) -> bool {
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
    fn the_status_is_logged_only_when_it_changes() {
        let (connection, requests) = Connection::new("kafka:9092".to_owned());
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        // From the end: twice connected, three probes without an answer, connected again.
        let script = RefCell::new(vec![true, false, false, false, true, true]);
        let probe = |_| {
            connection.note_error(Code::BrokerTransportFailure, "kafka:9092/1: connection refused");
            Some((Arc::clone(&connection), script.borrow_mut().pop()?))
        };
        tracing::subscriber::with_default(subscriber, || run_probes(&requests, probe));

        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let events: Vec<_> = text.lines().map(|line| line.split("event=").nth(1).unwrap()).collect();
        let connected = r#""broker_connected" server="kafka:9092""#;
        let lost = r#""broker_disconnected" server="kafka:9092" error="kafka:9092/1: connection refused""#;
        assert_eq!(events, [connected, lost, connected]);
    }

    #[test]
    fn a_refusal_is_reported_as_a_refusal() {
        let (connection, _requests) = Connection::new("kafka:9092".to_owned());
        let error = || connection.error(Code::OperationTimedOut, "ping", PROBE_TIMEOUT);
        assert!(error().to_string().contains("kafka:9092"));
        connection.note_error(Code::AllBrokersDown, "1/1 brokers are down");
        connection.note_error(Code::Authentication, "kafka:9092: invalid credentials");
        assert!(matches!(error(), BrokerError::Refused(reason) if reason.contains("invalid credentials")));
        connection.note_probe(true);
        assert!(matches!(error(), BrokerError::Timeout { .. }));
    }
}
