//! What becomes of revoked and replayed tasks if the store loses its memory.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::until;
use crate::{
    Client, Context, Error, Revocation, Status, Worker, WorkerBuilder,
    broker::read_to_end,
    clock::SystemClock,
    config::{Config, Embedded, Target},
    core::names::{Namespace, TaskId},
    task::TaskError,
    wire::control::CONTROL_PARTITION,
};

const WAIT: Duration = Duration::from_secs(30);

/// Which tasks have run.
type Book = Arc<Mutex<HashSet<TaskId>>>;

#[crate::task(crate = crate)]
async fn note(ctx: Context) -> Result<(), TaskError> {
    ctx.state::<Book>()?.lock().unwrap().insert(ctx.id().clone());
    Ok(())
}

/// Fails once for good, or until its retry.
#[crate::task(crate = crate)]
async fn fail_first(ctx: Context, retry: bool) -> Result<(), TaskError> {
    match ctx.state::<Book>()?.lock().unwrap().insert(ctx.id().clone()) {
        true if retry => Err(TaskError::retry_after("later", Duration::from_secs(3_600))),
        true => Err(TaskError::fatal("no")),
        false => Ok(()),
    }
}

struct Bench {
    client: Client,
    embedded: Embedded,
    book: Book,
}

impl Bench {
    fn new() -> Self {
        let (namespace, clock) = (Namespace::default(), SystemClock::shared());
        let embedded = Embedded::new(&namespace, Arc::clone(&clock));
        let target = Target::Embedded(embedded.clone());
        let client = Client::open(Config { target, namespace, max_record_bytes: 1_000, clock }).unwrap();
        Self { client, embedded, book: Book::default() }
    }

    fn lose_memory(&self) {
        self.embedded.store().forget_tasks();
    }

    fn worker(&self) -> WorkerBuilder {
        Worker::builder().client(&self.client).register(note).register(fail_first).state(Arc::clone(&self.book))
    }

    fn has_run(&self, id: &TaskId) -> bool {
        self.book.lock().unwrap().contains(id)
    }

    /// The keys of the control topic.
    async fn controls(&self) -> HashSet<String> {
        let (broker, mut keys) = (self.client.broker(), HashSet::new());
        let each = |record: crate::broker::Incoming| {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            if record.value.is_empty() {
                keys.remove(&key)
            } else {
                keys.insert(key)
            };
        };
        read_to_end(&**broker, &"yadtq.control".into(), &[(CONTROL_PARTITION, 0)], each).await.unwrap();
        keys
    }

    /// Waits until all records of the queue have ended.
    async fn all_ended(&self) {
        let lag = async || self.client.admin().queues().await.unwrap().iter().map(|queue| queue.lag).sum::<u64>();
        until(async || (lag().await == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn revoked_tasks_do_not_run_if_the_store_loses_its_memory() {
    let bench = Bench::new();
    let client = &bench.client;
    let handles = client.send_many((0..20).map(|_| note.call())).await;
    let handles: Vec<_> = handles.into_iter().map(Result::unwrap).collect();
    for handle in &handles {
        assert_eq!(handle.revoke().await.unwrap(), Revocation::Revoked);
    }
    assert_eq!(bench.controls().await.len(), 20);
    bench.lose_memory();
    let worker = bench.worker().start().await.unwrap();
    note.call().send(client).await.unwrap().wait(WAIT).await.unwrap();
    bench.all_ended().await;
    for handle in &handles {
        assert!(!bench.has_run(handle.id()));
        assert_eq!(handle.status().await.unwrap(), Status::Revoked);
        assert!(matches!(handle.wait(WAIT).await, Err(Error::Revoked { .. })));
    }
    // Nothing is kept of what has ended.
    until(async || bench.controls().await.is_empty().then_some(())).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_revocation_that_the_store_remembers_is_forgotten_with_its_record_too() {
    let bench = Bench::new();
    let worker = bench.worker().start().await.unwrap();
    for _ in 0..20 {
        let handle = note.call().send(&bench.client).await.unwrap();
        // It may have run by then, or its record may be read before its revocation.
        handle.revoke().await.unwrap();
    }
    bench.all_ended().await;
    until(async || bench.controls().await.is_empty().then_some(())).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_waits_for_its_retry_is_cancelled_even_if_the_store_has_lost_it() {
    let bench = Bench::new();
    let (client, admin) = (&bench.client, bench.client.admin());
    let worker = bench.worker().start().await.unwrap();
    let handles = client.send_many((0..2).map(|_| fail_first.call(true))).await;
    let [cancelled, revoked] = handles.into_iter().map(Result::unwrap).collect::<Vec<_>>().try_into().unwrap();
    until(async || (admin.scheduled(9).await.unwrap().total == 2).then_some(())).await;
    bench.lose_memory();
    assert_eq!(admin.cancel_scheduled(cancelled.id()).await.unwrap(), Revocation::Revoked);
    let left = admin.scheduled(9).await.unwrap().tasks;
    assert_eq!(left.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), [revoked.id().as_str()]);

    // Without that, its record waits on, and ends as revoked when it is due, even if the store forgets that too.
    assert_eq!(client.revoke(revoked.id()).await.unwrap(), Revocation::Revoked);
    worker.stop().await.unwrap();
    bench.lose_memory();
    let worker = bench.worker().start().await.unwrap();
    assert!(admin.run_now(revoked.id()).await.unwrap());
    let status = async || client.admin().task(revoked.id()).await.unwrap().map(|task| task.status);
    until(async || (status().await == Some(Status::Revoked)).then_some(())).await;
    assert!(bench.controls().await.contains(&format!("revoke/{}", revoked.id())), "other records of it may come");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_handle_follows_a_replay_which_lifts_revocations() {
    let bench = Bench::new();
    let (client, admin) = (&bench.client, bench.client.admin());
    let worker = bench.worker().start().await.unwrap();
    let mut handle = fail_first.call(false).send(client).await.unwrap();
    let failed = (&mut handle).await.unwrap_err();
    let Error::TaskFailed { id, task, attempts: 1, .. } = &failed else { panic!("{failed:?}") };
    assert_eq!((id, &**task), (handle.id(), "fail_first"));
    assert_eq!(handle.status().await.unwrap(), Status::Failure);
    until(async || (admin.dead_letters().count().await.unwrap() == 1).then_some(())).await;
    bench.lose_memory();
    assert_eq!(handle.revoke().await.unwrap(), Revocation::Revoked);
    // The replay has to be later.
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(admin.dead_letters().replay().await.unwrap().replayed, 1);
    handle.wait(WAIT).await.unwrap();
    (&mut handle).await.unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Success);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_handle_by_id_and_its_progress_outlive_the_memory_of_the_store() {
    let bench = Bench::new();
    let handle = note.call().countdown(Duration::from_secs(3_600)).send(&bench.client).await.unwrap();
    let other = Client::open(bench.client.config().clone()).unwrap();
    let (mut waits, watches) = (other.handle::<()>(handle.id().clone()), other.handle::<()>(handle.id().clone()));
    let mut progress = watches.progress::<u64>();
    assert!(futures_util::FutureExt::now_or_never(&mut waits).is_none());
    // Looked up at once, as the handle of a task that does not exist is. The second lookup follows the end of the first.
    for unknown in [TaskId::new(), TaskId::new()] {
        let unknown = other.handle::<()>(unknown);
        assert!(matches!(unknown.wait(WAIT).await, Err(Error::NotFound { .. })));
    }
    bench.lose_memory();
    // The next lookup of the progress, after 3 s, finds nothing.
    let next = tokio::time::timeout(Duration::from_secs(4), progress.next()).await;
    assert!(next.is_err(), "{next:?}");
    let worker = bench.worker().start().await.unwrap();
    assert!(bench.client.admin().run_now(handle.id()).await.unwrap());
    tokio::time::timeout(WAIT, waits).await.unwrap().unwrap();
    assert!(progress.next().await.is_none());
    worker.stop().await.unwrap();
}
