//! What the Redis user of this process may do, as far as that is known.
//!
//! Since Redis 7 a new user may use no channels. Everything that goes over channels is a hint, so such a user works all the same:
//! results are looked up, the dead are noticed by their leases, and no work is offered to others.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fred::interfaces::PubsubInterface;

use super::{
    RedisStore,
    call::{Args, Call, Script},
    codec, refusal,
};
use crate::store::StoreError;

static RIGHTS: Script = Script::new(&[include_str!("lua/rights.lua")]);

/// After this time a right that was refused is tried again: 10 s.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// What was refused.
#[derive(Debug, Default)]
pub(super) struct Rights {
    may_not_subscribe: AtomicBool,
    /// When a publish was refused last.
    may_not_publish: Mutex<Option<Instant>>,
}

impl Rights {
    /// Whether this process may subscribe to the channel of its worker.
    pub(super) fn may_subscribe(&self) -> bool {
        !self.may_not_subscribe.load(Ordering::Relaxed)
    }

    pub(super) fn set_may_subscribe(&self, may_subscribe: bool) {
        self.may_not_subscribe.store(!may_subscribe, Ordering::Relaxed);
    }

    /// Whether this process may publish; after a while it may try again.
    pub(super) fn may_publish(&self) -> bool {
        self.lock().is_none_or(|at| at.elapsed() >= RETRY_INTERVAL)
    }

    /// A publish was refused. `true`: that is news.
    pub(super) fn publish_refused(&self) -> bool {
        self.lock().replace(Instant::now()).is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.may_not_publish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisStore {
    /// What the user may not do although it is needed, each with its remedy.
    pub(super) async fn missing_rights(&self) -> Result<Vec<String>, StoreError> {
        let mut missing = Vec::new();
        // All keys start with one of these two.
        for key in [self.keys.probe(), self.keys.workers_part("probe")] {
            let mut args = Args::default();
            args.text(&key).text(&self.keys.reply("probe"));
            let (prefix, _) = key.rsplit_once(':').unwrap_or_default();
            match self.send(&RIGHTS, &[Call { args, keys: 1 }]).await {
                Ok(answers) => {
                    let denied = answers.into_iter().flat_map(fred::types::Value::into_array);
                    missing.extend(denied.map(|name| may_not_run(&codec::text(&name))));
                }
                Err(StoreError::Refused(reply)) if reply.contains("keys") && is_denied(&reply) => {
                    missing.push(format!(
                        "this user may not use the keys {prefix}:*; allow them with: ACL SETUSER <user> ~{prefix}:*"
                    ))
                }
                Err(StoreError::Refused(reply)) if is_denied(&reply) => {
                    missing.push(format!("this user may not run a script: {reply}; allow +eval +evalsha +script|load"));
                }
                // Its master is away, which is reported with the masters.
                Err(error) if self.is_clustered && error.is_outage() => {}
                Err(error) => return Err(error),
            }
        }
        let channel = self.keys.reply("probe");
        let connection = self.connections.any().await?;
        match connection.client().publish::<(), _, _>(&channel, "").await {
            Err(error) if is_denied(error.details()) && error.details().contains("channels") => {
                missing.push(format!(
                    "this user may not use the channel {channel}: results and revocations come late, dead workers are noticed \
                     by their leases alone, and no work is offered to others; allow it with: ACL SETUSER <user> &{}",
                    pattern(&channel)
                ));
            }
            Err(error) if is_denied(error.details()) => missing.push(may_not_run("PUBLISH")),
            answer => answer.map_err(self.store_error(&connection))?,
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }
}

fn may_not_run(command: &str) -> String {
    let right = if command == "PUBSUB" { "pubsub|numsub".to_owned() } else { command.to_lowercase() };
    format!("this user may not run {command}; allow it with: ACL SETUSER <user> +{right}")
}

/// Whether this is the answer to a command that the user may not run, or not with this key or channel.
pub(super) fn is_denied(reply: &str) -> bool {
    refusal::code(reply) == "NOPERM" || reply.contains("The user executing the script can't")
}

/// Logs that the user may not use channels.
pub(super) fn log_denied(channel: &str, error: &str) {
    tracing::error!(
        event = "channels_denied",
        channel,
        error,
        "this redis user may not use the channel: results and revocations are looked up every second, dead workers are noticed by \
         their leases alone, and no work is offered to others; allow it with: ACL SETUSER <user> &{} +subscribe +publish",
        pattern(channel)
    );
}

/// The channels of a namespace.
fn pattern(channel: &str) -> String {
    format!("{}:*", channel.split(':').next().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    /// The commands that a script runs.
    fn commands(text: &str) -> BTreeSet<&str> {
        let calls = ["call('", "try('"].into_iter().flat_map(|call| text.split(call).skip(1));
        calls.filter_map(|rest| rest.split('\'').next()).collect()
    }

    #[test]
    fn every_command_of_a_script_is_checked_and_in_the_guide() {
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/redis/lua");
        let guide = include_str!("../../guide/operations.md");
        let checked = commands(include_str!("lua/rights.lua"));
        for script in std::fs::read_dir(scripts).unwrap() {
            let text = std::fs::read_to_string(script.unwrap().path()).unwrap();
            for command in commands(&text) {
                assert!(checked.contains(command), "{command}");
                let right = format!("+{}", command.to_lowercase());
                assert!(guide.contains(&right), "the guide lacks {right}");
            }
        }
    }
}
