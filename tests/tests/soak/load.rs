//! The load: tasks of every kind, and what their senders do in the meantime.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::Value;
use tokio::sync::Mutex;
use yadtq::{Call, Client, Error, Priority, Revocation, Status, TaskHandle, TaskId};
use yadtq_tests::{now_ms, soak::CURED, soak::Soak};

use super::ledger::{Ledger, Outcome};

/// Delay before a sender repeats a request to a server.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Dead letters per page: the most that are allowed.
const PAGE: usize = 10_000;

/// The arguments of a task without parameters.
pub(crate) const NO_ARGS: [u8; 0] = [];
/// Number of ordering keys.
const ORDERING_KEYS: usize = 8;

/// What all senders share.
pub(crate) struct Load {
    /// Sends the tasks.
    pub client: Client,
    /// Records what was sent, and how it ended.
    pub ledger: Ledger,
    /// Cures tasks that failed.
    pub soak: Soak,
    /// Number of tasks sent, by ordering key. It is locked while one is sent, so that the numbers are in order.
    lines: [Mutex<u64>; ORDERING_KEYS],
}

/// The kinds of tasks, and the share of each in the load.
const KINDS: [(&str, u32); 19] = [
    ("sum", 30),
    ("priority", 15),
    ("ignored", 5),
    ("flaky", 8),
    ("broken", 2),
    ("fatal", 2),
    ("delayed", 8),
    ("snooze", 3),
    ("expiring", 4),
    ("revoked", 3),
    ("revoked-delayed", 2),
    ("revoked-retrying", 1),
    ("revoked-running", 2),
    ("unique", 3),
    ("progress", 3),
    ("timeout", 2),
    ("blocking", 4),
    ("overrun", 1),
    ("ordered", 8),
];

/// A random kind, chosen by share.
pub(crate) fn any(rng: &mut Rng) -> &'static str {
    let mut at = rng.u32(..KINDS.iter().map(|(_, share)| share).sum::<u32>());
    for (kind, share) in KINDS {
        match at.checked_sub(share) {
            Some(rest) => at = rest,
            None => return kind,
        }
    }
    unreachable!("it is below the sum of all shares")
}

/// Only a success with this value.
pub(crate) fn success(value: impl Into<Value>) -> Vec<Outcome> {
    vec![Outcome::Success(Some(value.into()))]
}

/// Only a failure.
pub(crate) fn failure(kind: &str, attempts: u32) -> Vec<Outcome> {
    vec![Outcome::Failure(kind.to_owned(), attempts)]
}

fn ms(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

impl Load {
    /// A load for this client.
    pub(crate) fn new(client: Client, soak: Soak) -> Self {
        Self { client, ledger: Ledger::default(), soak, lines: Default::default() }
    }

    /// Sends a task of this kind, and waits for its end.
    pub(crate) async fn run(self: Arc<Self>, kind: &'static str, mut rng: Rng) {
        let rng = &mut rng;
        let (a, b) = (rng.i64(-1_000..1_000), rng.i64(-1_000..1_000));
        let sum = || Call::<Value>::named("soak_sum", (a, b));
        let handle = match kind {
            "priority" => {
                let priority = [Priority::High, Priority::Normal, Priority::Low][rng.usize(..3)];
                self.send(kind, sum().priority(priority), success(a + b)).await
            }
            "ignored" => self.send(kind, sum().ignore_result(), vec![Outcome::Success(None)]).await,
            "flaky" => {
                let failures = rng.u32(1..3);
                self.send(kind, Call::named("soak_flaky", (failures,)), success(failures + 1)).await
            }
            "broken" => self.send(kind, Call::named("soak_flaky", (9,)), failure("error", 3)).await,
            "fatal" => self.send(kind, Call::named("soak_fatal", NO_ARGS), failure("error", 1)).await,
            "delayed" => {
                let wait = ms(rng, 100..20_000);
                let not_before = now_ms() + u64::try_from(wait.as_millis()).expect("short");
                self.send_at(kind, sum().countdown(wait), success(a + b), not_before).await
            }
            "snooze" => {
                let until = now_ms() + rng.u64(100..2_000);
                self.send(kind, Call::named("soak_snooze", (until,)), success(1)).await
            }
            "expiring" => {
                let allowed = [success(a + b), vec![Outcome::Revoked]].concat();
                let time = Duration::from_millis(if rng.bool() { 1 } else { rng.u64(1..3_000) });
                self.send(kind, sum().expires_in(time), allowed).await
            }
            "revoked" => {
                let handle = self.send(kind, sum(), success(a + b)).await;
                self.revoke(&handle, success(a + b), false).await;
                handle
            }
            "revoked-delayed" => {
                let handle = self.send(kind, sum().countdown(Duration::from_secs(60)), vec![]).await;
                tokio::time::sleep(ms(rng, 0..1_500)).await;
                self.revoke(&handle, vec![], true).await;
                handle
            }
            "revoked-retrying" => {
                let day = Duration::from_secs(24 * 3_600);
                let retry = yadtq::Retry::new().max(2).base(day).cap(day);
                let call = Call::named("soak_flaky", (9,)).retry(retry);
                let handle = self.send(kind, call, vec![Outcome::Revoked]).await;
                self.reaches(&handle, Status::Retrying).await;
                self.revoke(&handle, vec![], false).await;
                handle
            }
            "revoked-running" => {
                let handle = self.send(kind, Call::named("soak_obey", NO_ARGS), vec![Outcome::Revoked]).await;
                self.reaches(&handle, Status::Running).await;
                self.revoke(&handle, vec![], false).await;
                handle
            }
            "unique" => return self.unique(kind, &sum(), rng.u64(..), a + b).await,
            "progress" => return self.progress(kind, rng.u64(2..6), rng.u64(10..80)).await,
            "timeout" => self.send(kind, Call::named("soak_dawdle", NO_ARGS), failure("timeout", 2)).await,
            "blocking" => {
                let time = rng.u64(1..40);
                self.send(kind, Call::named("soak_doze", (time,)), success(time)).await
            }
            "overrun" => self.send(kind, Call::named("soak_overrun", NO_ARGS), failure("timeout", 1)).await,
            "ordered" => self.ordered(kind, rng.usize(..ORDERING_KEYS), [0, 0, 0, 1, 2, 9][rng.usize(..6)]).await,
            _ => self.send(kind, sum(), success(a + b)).await,
        };
        self.see(handle).await;
    }

    /// Sends a task.
    pub(crate) async fn send(&self, kind: &'static str, call: Call<Value>, allowed: Vec<Outcome>) -> TaskHandle<Value> {
        self.send_at(kind, call, allowed, 0).await
    }

    /// Sends until it succeeds, because a server may be down.
    async fn send_at(
        &self, kind: &'static str, mut call: Call<Value>, allowed: Vec<Outcome>, not_before: u64,
    ) -> TaskHandle<Value> {
        loop {
            match call.clone().send(&self.client).await {
                Ok(handle) => {
                    self.ledger.sent(handle.id(), kind, allowed, not_before);
                    return handle;
                }
                Err(Error::Unacknowledged { id, .. }) => call = call.id(id),
                Err(Error::Unique { .. } | Error::Broker(_) | Error::Store(_)) => {}
                Err(other) => panic!("a task of kind {kind} cannot be sent: {other}"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Waits for the task's end.
    pub(crate) async fn see(&self, mut handle: TaskHandle<Value>) {
        let id = handle.id().clone();
        loop {
            match handle.await {
                Err(Error::Store(_) | Error::Broker(_)) => tokio::time::sleep(RETRY_DELAY).await,
                result => return self.ledger.ended(&id, result.into()),
            }
            handle = self.client.handle(id.clone());
        }
    }

    /// Revokes a task, which may then end as the answer says. `otherwise` is how it ends if it is not revoked.
    async fn revoke(&self, handle: &TaskHandle<Value>, otherwise: Vec<Outcome>, never: bool) {
        let answer = loop {
            match handle.revoke().await {
                Ok(answer) => break answer,
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        };
        let revoked = vec![Outcome::Revoked];
        match answer {
            Revocation::Revoked => self.ledger.may_end(handle.id(), revoked, never),
            Revocation::Asked { .. } => self.ledger.may_end(handle.id(), [revoked, otherwise].concat(), false),
            // Or the first answer was lost.
            Revocation::Ended { status: Status::Revoked } => self.ledger.may_end(handle.id(), revoked, false),
            Revocation::Ended { .. } => self.ledger.may_end(handle.id(), otherwise, false),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a task has this status, or has ended.
    async fn reaches(&self, handle: &TaskHandle<Value>, wanted: Status) {
        loop {
            match handle.status().await {
                Ok(status) if status == wanted || status.is_terminal() => return,
                _ => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    }

    /// Sends the next task of an ordering key.
    async fn ordered(&self, kind: &'static str, key: usize, failures: u32) -> TaskHandle<Value> {
        let allowed = if failures > 2 { failure("error", 3) } else { success(failures + 1) };
        let call = Call::named("soak_ordered", (failures,)).ordering_key(format!("line {key}"));
        let mut number = self.lines[key].lock().await;
        let handle = self.send(kind, call, allowed).await;
        self.ledger.in_line(handle.id(), key, *number);
        *number += 1;
        handle
    }

    /// Makes three calls with one unique key at once: they are one task.
    async fn unique(&self, kind: &'static str, call: &Call<Value>, key: u64, sum: i64) {
        let send = || {
            let call = call.clone().unique(format!("key {key}"), Duration::from_secs(3_600));
            self.send(kind, call, success(sum))
        };
        let (first, second, third) = tokio::join!(send(), send(), send());
        let new = [&first, &second, &third].iter().filter(|handle| handle.is_new()).count();
        if first.id() != second.id() || first.id() != third.id() || new > 1 {
            self.ledger.violation(format!("key {key}: {new} new of {first:?}, {second:?}, {third:?}"));
        }
        tokio::join!(self.see(first), self.see(second), self.see(third));
    }

    /// Sends a task and listens to its progress.
    async fn progress(&self, kind: &'static str, to: u64, step_ms: u64) {
        let handle = self.send(kind, Call::named("soak_count", (to, step_ms)), success(to)).await;
        let id = handle.id().clone();
        let mut stream = handle.progress::<u64>();
        let listen = async {
            while let Some(step) = stream.next().await {
                match step {
                    Ok(step) if (1..=to).contains(&step) => {}
                    // Progress is only a hint: Redis may be down.
                    Err(Error::Store(_)) => {}
                    other => self.ledger.violation(format!("{id}: of {to} steps it reported {other:?}")),
                }
            }
        };
        tokio::join!(listen, self.see(handle));
    }

    /// Cures all tasks that have failed so far, and replays them.
    pub(crate) async fn replay(self: Arc<Self>) {
        let page = loop {
            match self.client.admin().dead_letters().limit(PAGE).page().await {
                Ok(page) => break page,
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        };
        let mut ids: Vec<TaskId> = page.letters.into_iter().filter_map(|letter| letter.id).collect();
        ids.retain(|id| self.ledger.has_failed(id));
        // A letter may be written twice.
        ids.sort_unstable();
        ids.dedup();
        ids.iter().for_each(|id| self.soak.cure(id).expect("the directory can be written"));
        println!("replays {} dead letters", ids.len());
        let mut replayed = Vec::new();
        loop {
            if ids.is_empty() {
                break;
            }
            let letters = ids.iter().fold(self.client.admin().dead_letters(), |letters, id| letters.id(id));
            let done = letters.replay_each(|letter, result| match (&letter.id, result) {
                (Some(id), Ok(_)) => {
                    if self.ledger.replayed(id, CURED.into()) {
                        replayed.push(id.clone());
                    }
                }
                (id, Err(error)) => self.ledger.violation(format!("{id:?} cannot be replayed: {error}")),
                (None, Ok(_)) => {}
            });
            if done.await.is_ok() {
                break;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        let missing = ids.len() - replayed.len();
        if missing > 0 {
            self.ledger.violation(format!("{missing} dead letters were not replayed"));
        }
        for id in replayed {
            self.see(self.client.handle(id)).await;
        }
    }
}
