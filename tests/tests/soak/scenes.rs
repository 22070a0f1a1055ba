//! What happens only from time to time: bursts against limits, and an operator's controls.

use std::{future::Future, sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::Value;
use yadtq::{Call, Error, TaskHandle, admin::Disabled};
use yadtq_tests::{
    TEST_TIMEOUT,
    soak::{PURGED, What},
};

use super::{
    ledger::Outcome,
    load::{Load, NO_ARGS, RETRY_DELAY, failure, success},
};

/// Time after which all workers have applied a control; they do within 2 s.
const CONTROL_DELAY: Duration = Duration::from_secs(3);
/// How long nothing must happen before a queue counts as paused, and while it is paused.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// Number of keys of tasks of which few run at once.
const KEYS: u64 = 3;

impl Load {
    /// Sends more tasks at once than may start.
    pub(crate) async fn paced(self: Arc<Self>) {
        let call = Call::named("soak_paced", NO_ARGS);
        let handles = self.send_all("paced", 20, &call, &success(Value::Null)).await;
        self.see_all(handles).await;
    }

    /// Sends more tasks of one key at once than may run.
    pub(crate) async fn few(self: Arc<Self>, mut rng: Rng) {
        let key = rng.u64(..KEYS);
        let handles = self.send_all("few", 6, &Call::named("soak_few", (key,)), &success(key)).await;
        handles.iter().for_each(|handle| self.ledger.keyed(handle.id(), key));
        self.see_all(handles).await;
    }

    /// Applies the controls of an operator, one after the other.
    pub(crate) async fn controls(self: Arc<Self>) {
        self.pause().await;
        self.purge().await;
        self.disable().await;
        self.disable_to_dead_letters().await;
    }

    /// Checks that nothing starts in a paused queue.
    async fn pause(&self) {
        let admin = self.client.admin();
        acknowledged(|| admin.pause("default")).await;
        tokio::time::sleep(CONTROL_DELAY).await;
        let length = || self.soak.length().expect("the journal can be read");
        let quiet = async {
            loop {
                let before = length();
                tokio::time::sleep(QUIET_TIME).await;
                if before == length() {
                    return;
                }
            }
        };
        match tokio::time::timeout(TEST_TIMEOUT, quiet).await {
            Ok(()) => {
                self.soak.mark(What::Paused, 0).expect("the journal can be written");
                tokio::time::sleep(QUIET_TIME).await;
                self.soak.mark(What::Resumed, 0).expect("the journal can be written");
            }
            Err(_) => self.ledger.violation(format!("tasks still start {TEST_TIMEOUT:?} after a pause")),
        }
        acknowledged(|| admin.resume("default")).await;
        println!("the queue was paused");
    }

    /// Checks that a purge revokes the waiting tasks, but not those that are sent later.
    async fn purge(&self) {
        let admin = self.client.admin();
        acknowledged(|| admin.pause(PURGED)).await;
        tokio::time::sleep(CONTROL_DELAY).await;
        // A worker that learns of the control late may run one of the tasks.
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

    /// Checks that tasks of a disabled name wait.
    async fn disable(&self) {
        let handles = self.send_while_disabled(Disabled::Wait, "disabled", &success(Value::Null)).await;
        self.see_all(handles).await;
        println!("a task was disabled, and waited");
    }

    /// Checks that tasks of a disabled name become dead letters.
    async fn disable_to_dead_letters(&self) {
        // A worker that learns of the control late may run one of the tasks.
        let either = [success(Value::Null), failure("disabled", 1)].concat();
        let handles = self.send_while_disabled(Disabled::DeadLetter, "disabled-dead", &either).await;
        // Only tasks whose end was seen are replayed: wait until all workers know of the change.
        tokio::time::sleep(CONTROL_DELAY).await;
        self.see_all(handles).await;
        println!("a task was disabled, and became dead letters");
    }

    async fn send_while_disabled(
        &self, then: Disabled, kind: &'static str, allowed: &[Outcome],
    ) -> Vec<TaskHandle<Value>> {
        let admin = self.client.admin();
        acknowledged(|| admin.disable_task("soak_switched", then)).await;
        tokio::time::sleep(CONTROL_DELAY).await;
        let handles = self.send_all(kind, 5, &Call::named("soak_switched", NO_ARGS), allowed).await;
        tokio::time::sleep(CONTROL_DELAY).await;
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

/// Repeats a control until it is acknowledged.
async fn acknowledged<T, F: Future<Output = Result<T, Error>>>(mut control: impl FnMut() -> F) -> T {
    loop {
        match control().await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(RETRY_DELAY).await,
        }
    }
}
