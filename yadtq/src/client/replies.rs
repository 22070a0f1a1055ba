//! The loop that settles handles.
//!
//! A publish is fast but may be lost; the store is slow to ask but knows. So: publishes settle handles at
//! once, and whatever may have been missed is asked for, every [`SWEEP`] and whenever the channel says so.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::waiting::{Settled, Waiting};
use crate::{
    core::{
        lifecycle::TaskState,
        names::{ClientId, TaskId},
    },
    error::Error,
    store::{Notice, Replies, Reply, Report, Store, StoreError},
};

/// How often open handles are looked up, in case a publish was lost.
const SWEEP: Duration = Duration::from_secs(30);
/// How often tasks are looked up whose progress somebody listens to, in case a publish was lost.
const LOOK: Duration = Duration::from_secs(3);
/// How long to wait before the store is asked again after an error.
const PAUSE: Duration = Duration::from_secs(1);
/// Ids per call.
const BATCH: usize = 1_000;

/// Runs until `stop`.
pub(super) async fn run(
    store: Arc<dyn Store>, client: ClientId, waiting: Arc<Waiting>, attaching: mpsc::UnboundedReceiver<TaskId>,
    stop: CancellationToken,
) {
    let work = async {
        let channel = loop {
            match store.replies(&client).await {
                Ok(channel) => break channel,
                Err(error) => {
                    warn!(event = "replies_unavailable", %error, "cannot listen for results yet");
                    sleep(PAUSE).await;
                }
            }
        };
        serve(&*store, &client, &waiting, channel, attaching).await;
    };
    stop.run_until_cancelled(work).await;
}

async fn serve(
    store: &dyn Store, client: &ClientId, waiting: &Waiting, mut channel: Box<dyn Replies>,
    mut attaching: mpsc::UnboundedReceiver<TaskId>,
) {
    let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut attach = Vec::with_capacity(BATCH);
    // What ended before the channel was open.
    ask(store, client, waiting, &waiting.open()).await;
    loop {
        tokio::select! {
            notice = channel.next() => match notice {
                Notice::Replies(replies) => {
                    for reply in replies {
                        let reply = Arc::new(reply);
                        waiting.settle(&reply.id, Settled::Ended(Arc::clone(&reply)));
                    }
                }
                Notice::Progress(reports) => reports.into_iter().for_each(|report| waiting.progress.tell(report)),
                // For workers.
                Notice::Revoke(_) => {}
                Notice::Ended(ids) => ask(store, client, waiting, &ids).await,
                Notice::Missed => ask(store, client, waiting, &waiting.open()).await,
            },
            count = attaching.recv_many(&mut attach, BATCH) => {
                if count == 0 {
                    return;
                }
                ask(store, client, waiting, &attach).await;
                attach.clear();
            }
            _ = look.tick() => ask(store, client, waiting, &waiting.progress.ids()).await,
            _ = sweep.tick() => ask(store, client, waiting, &waiting.open()).await,
        }
    }
}

/// Looks tasks up, settles those that ended, and has the others told to this client, with their progress where
/// somebody listens.
async fn ask(store: &dyn Store, client: &ClientId, waiting: &Waiting, ids: &[TaskId]) {
    let is_watched = |id: &TaskId| waiting.progress.contains(id);
    let (watched, others): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(is_watched);
    look_up(store, client, waiting, &others, false).await;
    look_up(store, client, waiting, &watched, true).await;
}

async fn look_up(store: &dyn Store, client: &ClientId, waiting: &Waiting, ids: &[TaskId], watch: bool) {
    let (mut rest, mut batch) = (ids, BATCH);
    while !rest.is_empty() {
        let (ids, later) = rest.split_at(batch.min(rest.len()));
        let read = match watch {
            true => store.watch(ids, client),
            false => store.read(ids, Some(client)),
        };
        let states = match read.await {
            Ok(states) => states,
            Err(error) => {
                let is_away = matches!(error, StoreError::Unavailable(_));
                if !is_away {
                    warn!(event = "replies_unavailable", %error, "cannot look results up");
                }
                if batch == 1 && !is_away {
                    waiting.settle(&ids[0], Settled::Failed(Error::Store(error)));
                    rest = later;
                } else if store.connected_for().is_some() {
                    // Perhaps these results are too large to come in time together.
                    batch = (batch / 2).max(1);
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        batch = (batch * 2).min(BATCH);
        rest = later;
        for (id, state) in ids.iter().zip(states) {
            match state {
                Ok(Some(state)) if state.status.is_terminal() => {
                    let (result, error) = (state.result, state.error);
                    let reply = Reply { id: id.clone(), status: state.status, result, error };
                    waiting.settle(id, Settled::Ended(Arc::new(reply)));
                }
                Ok(Some(TaskState { token, progress: Some(progress), .. })) if watch => {
                    waiting.progress.tell(Report { id: id.clone(), token, progress });
                }
                Ok(Some(_)) => {}
                Ok(None) => waiting.settle(id, Settled::Missing),
                Err(error) => waiting.settle(id, Settled::Failed(Error::Store(error))),
            }
        }
    }
}
