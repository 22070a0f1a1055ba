//! `yadtq ping`: whether both servers answer, and which settings should be fixed.

use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, Color};
use serde::Serialize;
use yadtq::{
    Error,
    admin::{PingReport, ServerReport},
};

use crate::{
    exit::Exit,
    failure::{self, Failure},
    global::Global,
    output::Answer,
    table, time,
};

/// Check the connection to Kafka and Redis, and warn about settings that endanger tasks
///
/// The exit code is 5 if a server cannot be reached or refuses the request; warnings do not change it. The check takes at
/// most a few seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq ping
  yadtq ping --kafka kafka-1:9092 --redis redis://redis:6379
  yadtq ping --json | jq '.kafka.warnings, .redis.warnings'")]
pub(crate) struct Ping {}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Findings {
    kafka: Finding,
    redis: Finding,
}

/// The findings about one server. `ok` decides which of the other fields are present.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Finding {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Answer for Findings {
    fn human(&self) -> String {
        let rows = [("kafka", &self.kafka), ("redis", &self.redis)];
        table::lines(rows.into_iter().flat_map(|(server, finding)| finding.lines(server)))
    }
}

impl Ping {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let PingReport { kafka, redis, .. } = global.connect().await?.admin().ping().await;
        let findings = Findings { kafka: kafka.into(), redis: redis.into() };
        global.output().print(&findings)?;
        match (findings.kafka.ok, findings.redis.ok) {
            (true, true) => Ok(Exit::Done),
            (false, true) => Err(Failure::Unusable("kafka")),
            (true, false) => Err(Failure::Unusable("redis")),
            (false, false) => Err(Failure::Unusable("kafka and redis")),
        }
    }
}

impl Finding {
    fn lines(&self, server: &str) -> Vec<[Cell; 3]> {
        let mut lines = Vec::new();
        let mut add = |label: &str, colour: Color, line: &str| {
            let server = if lines.is_empty() { server } else { "" };
            lines.push([table::name(server), Cell::new(label).fg(colour), table::text(line)]);
        };
        if let (Some(summary), Some(took)) = (&self.summary, self.took_ms) {
            add(
                "ok",
                Color::DarkGreen,
                &format!("{summary}, answered in {}", time::exact(Duration::from_millis(took))),
            );
        }
        if let Some(error) = &self.error {
            add("error", Color::DarkRed, error);
        }
        if let Some(remedy) = self.remedy {
            add("remedy", Color::DarkCyan, remedy);
        }
        for warning in &self.warnings {
            add("warning", Color::DarkYellow, warning);
        }
        lines
    }
}

impl From<Result<ServerReport, Error>> for Finding {
    fn from(answer: Result<ServerReport, Error>) -> Self {
        match answer {
            Ok(ServerReport { summary, took, warnings, .. }) => Self {
                ok: true,
                summary: Some(summary),
                took_ms: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
                warnings,
                error: None,
                remedy: None,
            },
            Err(error) => Self {
                ok: false,
                summary: None,
                took_ms: None,
                warnings: Vec::new(),
                error: Some(error.to_string()),
                remedy: failure::remedy(&error),
            },
        }
    }
}
