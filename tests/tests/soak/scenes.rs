//! What is not sent all the time: bursts against limits, and an operator's orders.

use std::{future::Future, sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::Value;
use yadtq::{Call, Disabled, Error, TaskHandle};
use yadtq_tests::{
    PATIENCE,
    soak::{PURGED, What},
};

use super::{
    ledger::Outcome,
    load::{AGAIN, Load, NO_ARGS, failure, success},
};

/// Within 2 s all workers know an order.
const KNOWN: Duration = Duration::from_secs(3);
/// How long nothing must happen before a queue counts as paused, and while it does.
const QUIET: Duration = Duration::from_secs(1);
/// Keys of tasks of which few run at once.
const KEYS: u64 = 3;

impl Load {
    /// More tasks at once than may start.
    pub async fn paced(self: Arc<Self>) {
        let call = Call::named("soak_paced", NO_ARGS);
        let handles = self.send_all("paced", 20, &call, &success(Value::Null)).await;
        self.see_all(handles).await;
    }

    /// More tasks of one key at once than may run.
    pub async fn few(self: Arc<Self>, mut rng: Rng) {
        let key = rng.u64(..KEYS);
        let handles = self.send_all("few", 6, &Call::named("soak_few", (key,)), &success(key)).await;
        handles.iter().for_each(|handle| self.ledger.keyed(handle.id(), key));
        self.see_all(handles).await;
    }

    /// Orders of an operator, one after the other.
    pub async fn orders(self: Arc<Self>) {
        self.pause().await;
        self.purge().await;
        self.disable().await;
        self.disable_to_dead_letters().await;
    }

    /// Nothing starts in a paused queue.
    async fn pause(&self) {
        let admin = self.client.admin();
        acknowledged(|| admin.pause("default")).await;
        tokio::time::sleep(KNOWN).await;
        let length = || self.soak.length().expect("the journal can be read");
        let quiet = async {
            loop {
                let before = length();
                tokio::time::sleep(QUIET).await;
                if before == length() {
                    return;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, quiet).await {
            Ok(()) => {
                self.soak.mark(What::Paused, 0).expect("the journal can be written");
                tokio::time::sleep(QUIET).await;
                self.soak.mark(What::Resumed, 0).expect("the journal can be written");
            }
            Err(_) => self.ledger.violation(format!("tasks still start {PATIENCE:?} after a pause")),
        }
        acknowledged(|| admin.resume("default")).await;
        println!("the queue was paused");
    }

    /// What waits in a queue ends, and what comes later does not.
    async fn purge(&self) {
        let admin = self.client.admin();
        acknowledged(|| admin.pause(PURGED)).await;
        tokio::time::sleep(KNOWN).await;
        // A worker that hears late may run one.
        let call = Call::named("soak_purged", NO_ARGS).queue(PURGED);
        let either = [success(Value::Null), vec![Outcome::Revoked]].concat();
        let waiting = self.send_all("purged", 20, &call, &either).await;
        acknowledged(|| admin.purge(PURGED)).await;
        acknowledged(|| admin.resume(PURGED)).await;
        let later = self.send_all("after-purge", 5, &call, &success(Value::Null)).await;
        let ids: Vec<_> = waiting.iter().map(|handle| handle.id().clone()).collect();
        self.see_all([waiting, later].concat()).await;
        let revoked = ids.iter().filter(|id| self.ledger.outcome(id) == Some(Outcome::Revoked)).count();
        if revoked == 0 {
            self.ledger.violation("a purge ended nothing".to_owned());
        }
        println!("a queue was purged: {revoked} tasks");
    }

    /// Tasks of a disabled name wait.
    async fn disable(&self) {
        let handles = self.send_while_disabled(Disabled::Wait, "disabled", &success(Value::Null)).await;
        self.see_all(handles).await;
        println!("a task was disabled, and waited");
    }

    /// Or they become dead letters.
    async fn disable_to_dead_letters(&self) {
        // A worker that hears late may run one.
        let either = [success(Value::Null), failure("disabled", 1)].concat();
        let handles = self.send_while_disabled(Disabled::DeadLetter, "disabled-dead", &either).await;
        // Only what is seen to its end is replayed: not before everybody knows.
        tokio::time::sleep(KNOWN).await;
        self.see_all(handles).await;
        println!("a task was disabled, and became dead letters");
    }

    async fn send_while_disabled(
        &self, then: Disabled, kind: &'static str, allowed: &[Outcome],
    ) -> Vec<TaskHandle<Value>> {
        let admin = self.client.admin();
        acknowledged(|| admin.disable_task("soak_switched", then)).await;
        tokio::time::sleep(KNOWN).await;
        let handles = self.send_all(kind, 5, &Call::named("soak_switched", NO_ARGS), allowed).await;
        tokio::time::sleep(KNOWN).await;
        acknowledged(|| admin.enable_task("soak_switched")).await;
        handles
    }

    async fn send_all(
        &self, kind: &'static str, count: u32, call: &Call<Value>, allowed: &[Outcome],
    ) -> Vec<TaskHandle<Value>> {
        let mut handles = Vec::new();
        for _ in 0..count {
            handles.push(self.send(kind, call.clone(), allowed.to_vec()).await);
        }
        handles
    }

    async fn see_all(&self, handles: Vec<TaskHandle<Value>>) {
        for handle in handles {
            self.see(handle).await;
        }
    }
}

/// Gives an order until it is acknowledged.
async fn acknowledged<T, F: Future<Output = Result<T, Error>>>(mut order: impl FnMut() -> F) -> T {
    loop {
        match order().await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
