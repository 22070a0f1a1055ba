//! Checks whether both servers answer, and whether their settings endanger tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use super::Admin;
use crate::{error::Error, store::WorkerInfo};

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
            let took = start.elapsed();
            // What cannot be read says nothing about the servers.
            let workers = self.store.workers().await.unwrap_or_default();
            let warnings = info.warnings.into_iter().chain(lacking(&workers)).collect();
            Ok(ServerReport { summary: info.summary, took, warnings })
        };
        let (kafka, redis) = tokio::join!(kafka, redis);
        PingReport { servers: self.config.servers(), kafka, redis }
    }
}

/// The most warnings about workers that lack tasks.
const MAX_LACKING: usize = 10;

/// Which workers do not know tasks that others of the same queue know.
fn lacking(workers: &[WorkerInfo]) -> Vec<String> {
    let mut known = BTreeMap::<&str, BTreeSet<&str>>::new();
    // One of an older version does not say.
    let workers: Vec<_> = workers.iter().filter(|worker| !worker.tasks.is_empty()).collect();
    for worker in &workers {
        for queue in &worker.queues {
            known.entry(queue).or_default().extend(worker.tasks.iter().map(String::as_str));
        }
    }
    let mut lacking = Vec::new();
    for worker in workers {
        let own: BTreeSet<_> = worker.tasks.iter().map(String::as_str).collect();
        for queue in &worker.queues {
            let mut missing = known[&**queue].difference(&own);
            let Some(first) = missing.next() else { continue };
            let rest = missing.count();
            let more = if rest == 0 { String::new() } else { format!(" (and {rest} more)") };
            lacking.push(format!(
                "worker {} ({}, pid {}) reads queue {queue} and does not know its task `{first}`{more}, as others do: give \
                 tasks with workers of their own a queue of their own, or finish the deploy",
                worker.id, worker.host, worker.pid
            ));
        }
    }
    if lacking.len() > MAX_LACKING {
        let more = lacking.len() - MAX_LACKING;
        lacking.truncate(MAX_LACKING);
        lacking.push(format!("{more} more such warnings about workers that lack tasks"));
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_lack_a_task_of_their_queue_are_named() {
        let worker = |id: &str, queues: &[&str], tasks: &[&str]| WorkerInfo {
            id: id.to_owned(),
            queues: queues.iter().map(ToString::to_string).collect(),
            tasks: tasks.iter().map(ToString::to_string).collect(),
            ..WorkerInfo::default()
        };
        let same = [worker("a", &["mail"], &["send", "sort"]), worker("b", &["mail"], &["send", "sort"])];
        assert_eq!(lacking(&same), Vec::<String>::new());
        let other = [worker("a", &["mail", "x"], &["send"]), worker("b", &["mail"], &["send", "sort", "weigh"])];
        let warnings = lacking(&other);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains("worker a (") && warning.contains("queue mail"), "{warning}");
        assert!(warning.contains("`sort` (and 1 more)"), "{warning}");
        let old = [worker("a", &["mail"], &["send"]), worker("b", &["mail"], &[])];
        assert_eq!(lacking(&old), Vec::<String>::new(), "one that does not say");
        let mut many: Vec<_> = (0..30).map(|n| worker(&n.to_string(), &["mail"], &["send"])).collect();
        many.push(worker("new", &["mail"], &["send", "sort"]));
        assert_eq!(lacking(&many).len(), MAX_LACKING + 1);
    }
}
