//! Watches how full the store is, and warns before it is full: then no task starts or ends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    core::names::WorkerId,
    store::{Memory, Store},
    worker::options::CONNECTION_INTERVAL,
};

/// Time from one look to the next.
const INTERVAL: Duration = Duration::from_secs(60);
/// A rate is that of at least this time, so that it is not the noise of a moment.
const RATE_TIME: Duration = Duration::from_secs(600);
/// Time from one warning about a server to the next.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// Looks once a minute, from the first connection on.
pub(in crate::worker) async fn run(worker: WorkerId, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut watch = Watch::default();
    loop {
        let is_connected = store.connected_for().is_some();
        for (server, text) in watch.look(store.memory().await, Instant::now()) {
            warn!(event = "backend_memory_high", worker = %worker, server, "{text}");
        }
        tokio::select! {
            () = sleep(if is_connected { INTERVAL } else { CONNECTION_INTERVAL }) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What was seen of each server.
#[derive(Default)]
struct Watch(HashMap<String, Seen>);

struct Seen {
    /// Where the rate is counted from.
    since: (Instant, Memory),
    /// Where it is counted from once that is old enough.
    next: (Instant, Memory),
    warned: Option<Instant>,
}

impl Watch {
    /// The servers to warn about, and the warnings.
    fn look(&mut self, servers: Vec<Memory>, now: Instant) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        for memory in servers {
            let first = (now, memory.clone());
            let seen = self.0.entry(memory.server.clone()).or_insert_with(|| Seen {
                since: first.clone(),
                next: first.clone(),
                warned: None,
            });
            let warning = memory.warning(&seen.since.1, now.saturating_duration_since(seen.since.0));
            if now.saturating_duration_since(seen.next.0) >= RATE_TIME {
                seen.since = std::mem::replace(&mut seen.next, first);
            }
            let Some(warning) = warning else {
                seen.warned = None;
                continue;
            };
            if seen.warned.is_none_or(|at| now.saturating_duration_since(at) >= WARNING_INTERVAL) {
                seen.warned = Some(now);
                warnings.push((memory.server.clone(), warning));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_fills_is_reported_now_and_then_with_the_time_that_is_left() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let mut look = |minute: u64, used: u64| {
            let memory = Memory { server: "db:6379".to_owned(), used, most: 1_000 };
            let now = start + Duration::from_secs(60 * minute);
            watch.look(vec![memory], now).into_iter().map(|(_, warning)| warning).collect::<Vec<_>>()
        };
        assert_eq!(look(0, 600), Vec::<String>::new());
        let warned = look(10, 700);
        assert!(warned[0].contains("70 %") && warned[0].contains("full in about 30 min"), "{warned:?}");
        assert_eq!(look(11, 710), Vec::<String>::new(), "not each minute");
        assert!(look(20, 720)[0].contains("full in about"), "ten minutes later");
        assert_eq!(look(21, 500), Vec::<String>::new());
        assert!(!look(22, 800).is_empty(), "again after it was better");
        (23..1_000).for_each(|minute| _ = look(minute, 600));
        let warned = look(1_000, 700);
        assert!(warned[0].contains("full in about 60 min"), "the rate of the last 20 minutes, not of all: {warned:?}");
    }
}
