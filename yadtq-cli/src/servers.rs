//! From the options to a client.

use std::time::Duration;

use yadtq::Client;

use crate::{cli::Global, failure::Failure};

/// How long Kafka may take to acknowledge a task: a person waits.
const SEND_TIMEOUT: Duration = Duration::from_secs(8);

impl Global {
    /// A client for the servers that the options name. It connects in the background.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let mut builder = Client::builder().send_timeout(SEND_TIMEOUT);
        if let Some(kafka) = given(self.kafka.as_deref()) {
            if kafka == "embedded" {
                return Err(Failure::Input(
                    "embedded servers live inside one process, where this command cannot reach them; name a real \
                     kafka with --kafka or YADTQ_KAFKA"
                        .to_owned(),
                ));
            }
            builder = builder.kafka(kafka);
        }
        if let Some(redis) = given(self.redis.as_deref()) {
            builder = builder.redis(redis);
        }
        if let Some(namespace) = given(self.namespace.as_deref()) {
            builder = builder.namespace(namespace);
        }
        Ok(builder.build().await?)
    }

    /// The namespace, for people.
    pub(crate) fn namespace(&self) -> &str {
        given(self.namespace.as_deref()).unwrap_or("yadtq")
    }
}

/// An empty variable is as good as none.
fn given(option: Option<&str>) -> Option<&str> {
    option.filter(|value| !value.is_empty())
}
