//! Checks whether both servers answer, and whether their settings endanger tasks.

use std::time::Duration;

use serde::Serialize;

use super::Admin;
use crate::error::Error;

/// What [`Admin::ping`] found out about one server.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReport {
    /// Product, version and address, in one line.
    pub summary: String,
    /// How long the answer took.
    #[serde(skip)]
    pub took: Duration,
    /// Settings that endanger tasks or results, each with its remedy.
    pub warnings: Vec<String>,
}

/// What [`Admin::ping`] found out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PingReport {
    /// The addresses of both servers, without passwords.
    pub servers: String,
    /// Kafka's answer.
    pub kafka: Result<ServerReport, Error>,
    /// Redis's answer.
    pub redis: Result<ServerReport, Error>,
}

impl Admin {
    /// Checks whether both servers answer, and looks for settings that endanger tasks or results.
    pub async fn ping(&self) -> PingReport {
        let start = tokio::time::Instant::now();
        let kafka = async {
            let info = self.broker.ping().await?;
            Ok(ServerReport { summary: info.summary, took: start.elapsed(), warnings: info.warnings })
        };
        let redis = async {
            let info = self.store.ping().await?;
            Ok(ServerReport { summary: info.summary, took: start.elapsed(), warnings: info.warnings })
        };
        let (kafka, redis) = tokio::join!(kafka, redis);
        PingReport { servers: self.config.servers(), kafka, redis }
    }
}
