//! The options that every command has, and the client that they describe.

use std::time::Duration;

use clap::{ArgAction, Args};
use yadtq::Client;

use crate::{failure::Failure, output::Output};

/// How long a command waits for Kafka to acknowledge a task. It is short, because a person waits.
const SEND_TIMEOUT: Duration = Duration::from_secs(8);

/// The options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Bootstrap servers of Kafka [default: localhost:9092]. YADTQ_KAFKA_CONF=key=value,.. sets more, such as TLS and SASL
    #[arg(long, global = true, value_name = "HOST:PORT,..", env = "YADTQ_KAFKA", hide_env_values = true)]
    kafka: Option<String>,

    /// URL of Redis [default: redis://localhost:6379]
    #[arg(long, global = true, value_name = "URL", env = "YADTQ_REDIS", hide_env_values = true)]
    redis: Option<String>,

    /// Prefix of every topic and key [default: yadtq]
    #[arg(long, global = true, value_name = "NAME", env = "YADTQ_NAMESPACE", hide_env_values = true)]
    namespace: Option<String>,

    /// Print JSON on stdout: one object or one array, on one line. Errors stay plain text on stderr
    #[arg(long, global = true)]
    json: bool,

    /// Write logs to stderr: -v for the main events, -vv for details, -vvv for everything
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// Creates a client for the servers that the options name. It connects in the background.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let mut builder = Client::builder().send_timeout(SEND_TIMEOUT);
        if let Some(kafka) = non_empty(self.kafka.as_deref()) {
            if kafka == "embedded" {
                return Err(Failure::Input(
                    "embedded servers live inside one process, and this command cannot reach them; name a real \
                     kafka with --kafka or YADTQ_KAFKA"
                        .to_owned(),
                ));
            }
            builder = builder.kafka(kafka);
        }
        if let Some(redis) = non_empty(self.redis.as_deref()) {
            builder = builder.redis(redis);
        }
        if let Some(namespace) = non_empty(self.namespace.as_deref()) {
            builder = builder.namespace(namespace);
        }
        Ok(builder.build().await?)
    }

    /// The namespace, to show it to a person.
    pub(crate) fn namespace(&self) -> &str {
        non_empty(self.namespace.as_deref()).unwrap_or("yadtq")
    }

    /// How the command prints its answer.
    pub(crate) fn output(&self) -> Output {
        Output::new(self.json)
    }
}

/// An empty environment variable counts as unset.
fn non_empty(option: Option<&str>) -> Option<&str> {
    option.filter(|value| !value.is_empty())
}
