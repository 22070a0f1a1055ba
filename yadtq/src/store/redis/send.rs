//! How calls are sent: a script by its hash, or with its text where the server does not know it (yet, or any more).
//!
//! In a cluster the calls of a batch go to several masters at once. What is for one that is away fails at once, and one that is
//! slow must not hold up what the others have answered. What a node says of slots that have moved is followed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike, FredResult},
    types::{ClusterHash, CustomCommand, Value, config::Options},
};
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    RedisStore,
    call::{Call, Resend, Script},
    cluster::Masters,
    connection::Connection,
    connections::Connections,
    slot_map::Redirect,
};
use crate::store::StoreError;

/// How long a batch waits for slower masters once one has answered: 500 ms. What they do then is not known, as with any call that is
/// not answered.
const SLOWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a call is sent to another node, or once more, because of moved slots.
const MOST_REDIRECTS: usize = 5;
/// The wait before a call is sent again some keys of which have moved: 50 ms.
const MOVING_DELAY: Duration = Duration::from_millis(50);

impl RedisStore {
    /// Sends calls, one behind the other without waiting; returns the answer of each. The outer error says that none was answered,
    /// and in a cluster that no other master is there either.
    pub(super) async fn send_each(
        &self, script: &Script, calls: &[Call], resend: Resend,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        #[cfg(test)]
        let script = self.prelude.get().map_or(script, |prelude| prelude.script(script));
        let mut answers = match &self.connections {
            Connections::One(connection) => {
                let calls: Vec<&Call> = calls.iter().collect();
                answered(connection, send(&connection.client(), script, &calls, resend).await)
            }
            Connections::Cluster(cluster) => send_to_masters(&cluster.masters, script, calls, resend).await,
        };
        let is_part_away = |answer: &Result<Value, StoreError>| {
            self.is_clustered && answer.as_ref().is_err_and(StoreError::is_outage) && self.connected_to_any()
        };
        if answers.iter().any(|answer| answer.is_ok() || is_part_away(answer)) {
            return Ok(answers);
        }
        match answers.pop() {
            Some(Err(error)) => Err(error),
            _ => Ok(answers),
        }
    }

    fn connected_to_any(&self) -> bool {
        self.connections.connected_for().is_some()
    }
}

/// Turns fred's errors into ours.
fn answered(connection: &Connection, answers: Vec<FredResult<Value>>) -> Vec<Result<Value, StoreError>> {
    if answers.iter().any(Result::is_ok) {
        connection.answered();
    }
    answers.into_iter().map(|answer| answer.map_err(|error| connection.error(&error))).collect()
}

/// The calls of a batch for one master.
struct Part {
    connection: Arc<Connection>,
    /// Where they stand in the batch.
    at: Vec<usize>,
}

/// Sends each call to the master that has its key.
async fn send_to_masters(
    masters: &Masters, script: &Script, calls: &[Call], resend: Resend,
) -> Vec<Result<Value, StoreError>> {
    let (mut answers, mut parts) = (Vec::with_capacity(calls.len()), Vec::<Part>::new());
    for (at, call) in calls.iter().enumerate() {
        match masters.of(call.first_key()).await {
            Ok(connection) => {
                answers.push(None);
                match parts.iter_mut().find(|part| Arc::ptr_eq(&part.connection, &connection)) {
                    Some(part) => part.at.push(at),
                    None => parts.push(Part { connection, at: vec![at] }),
                }
            }
            Err(error) => answers.push(Some(Err(error))),
        }
    }
    let send = async |part: &Part| {
        let calls: Vec<&Call> = part.at.iter().map(|&at| &calls[at]).collect();
        (part.at.clone(), send_to_master(masters, &part.connection, script, &calls, resend).await)
    };
    let (mut sending, mut limit): (FuturesUnordered<_>, _) = (parts.iter().map(send).collect(), None);
    loop {
        let next = match limit {
            None => sending.next().await,
            Some(limit) => timeout_at(limit, sending.next()).await.ok().flatten(),
        };
        let Some((part, answered)) = next else { break };
        if answered.iter().any(Result::is_ok) {
            limit.get_or_insert_with(|| Instant::now() + SLOWER_TIMEOUT);
        }
        part.into_iter().zip(answered).for_each(|(at, answer)| answers[at] = Some(answer));
    }
    for Part { connection, at } in &parts {
        let late = || format!("{}: no answer within {SLOWER_TIMEOUT:?} of the others", connection.server());
        at.iter().for_each(|&at| _ = answers[at].get_or_insert_with(|| Err(StoreError::Unavailable(late()))));
    }
    answers.into_iter().flatten().collect()
}

/// Sends calls to one master, and follows where it sends them. If it is away, or goes away, they fail at once.
async fn send_to_master(
    masters: &Masters, connection: &Arc<Connection>, script: &Script, calls: &[&Call], resend: Resend,
) -> Vec<Result<Value, StoreError>> {
    let sent =
        unless_lost(connection, async { Ok(send(&connection.client(), script, calls, once(resend)).await) }).await;
    let answers = match sent {
        Ok(answers) => answers,
        Err(error) => return calls.iter().map(|_| Err(error.clone())).collect(),
    };
    if answers.iter().any(Result::is_ok) {
        connection.answered();
    }
    let followed = answers.into_iter().zip(calls).map(|(answer, call)| async move {
        match answer {
            Err(error) => follow(masters, Arc::clone(connection), script, call, resend, error).await,
            Ok(value) => Ok(value),
        }
    });
    join_all(followed).await
}

/// Sends a call to where the node has sent it that answered this error; returns the first other answer.
async fn follow(
    masters: &Masters, mut connection: Arc<Connection>, script: &Script, call: &Call, resend: Resend, mut error: Error,
) -> Result<Value, StoreError> {
    for _ in 0..MOST_REDIRECTS {
        let Some(redirect) = Redirect::read(error.details(), connection.host()) else { break };
        masters.look_again();
        if matches!(resend, Resend::Never) {
            break;
        }
        let is_asking = matches!(redirect, Redirect::Ask(_));
        match redirect {
            Redirect::Moved(server) | Redirect::Ask(server) => connection = masters.at(&server),
            Redirect::Later => sleep(MOVING_DELAY).await,
        }
        let client = connection.client();
        let answer = unless_lost(&connection, async {
            Ok(match is_asking {
                true => ask(&client, script, call).await,
                false => send(&client, script, &[call], Resend::IfConnected).await.remove(0),
            })
        });
        match answer.await? {
            Ok(value) => return Ok(value),
            Err(next) => error = next,
        }
    }
    Err(connection.error(&error))
}

/// Waits until the connection is there, if it is new; fails as soon as it is not.
async fn unless_lost<T>(
    connection: &Connection, call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    connection.ready().await?;
    tokio::select! {
        biased;
        answer = call => answer,
        error = connection.lost() => Err(error),
    }
}

fn once(resend: Resend) -> Resend {
    match resend {
        Resend::AfterReconnect => Resend::IfConnected,
        other => other,
    }
}

/// Sends calls, one behind the other without waiting; returns their answers in order.
async fn send(client: &Client, script: &Script, calls: &[&Call], resend: Resend) -> Vec<FredResult<Value>> {
    let hash = match script.hash(client).await {
        Ok(hash) => hash,
        Err(error) => return calls.iter().map(|_| Err(error.clone())).collect(),
    };
    let one = async |call: &Call| {
        let answer = send_one(client, "EVALSHA", hash.clone(), call, resend).await;
        match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                send_one(client, "EVAL", script.text().into(), call, resend).await
            }
            answer => answer,
        }
    };
    match calls {
        [call] => vec![one(call).await],
        calls => join_all(calls.iter().map(|call| one(call))).await,
    }
}

async fn send_one(
    client: &Client, command: &'static str, script: Bytes, call: &Call, resend: Resend,
) -> FredResult<Value> {
    let (command, values) = (eval(command), call.args.values(script, call.keys));
    let options = match resend {
        Resend::AfterReconnect => return client.custom(command, values).await,
        Resend::IfConnected => Options { max_attempts: Some(1), ..Options::default() },
        Resend::Never => Options { max_attempts: Some(1), fail_fast: true, ..Options::default() },
    };
    client.with_options(&options).custom(command, values).await
}

/// Sends a call to a node that does not have the slot yet, but the key.
async fn ask(client: &Client, script: &Script, call: &Call) -> FredResult<Value> {
    let pipeline = client.pipeline();
    pipeline.custom::<(), _>(CustomCommand::new_static("ASKING", None, false), Vec::<Value>::new()).await?;
    // With its text: the answer that the script is not known would have used up the permission.
    pipeline.custom::<(), _>(eval("EVAL"), call.args.values(script.text().into(), call.keys)).await?;
    pipeline.last().await
}

fn eval(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::Offset(2), false)
}
