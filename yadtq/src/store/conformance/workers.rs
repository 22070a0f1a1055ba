//! The registry of workers.

use super::*;

pub(super) fn info(id: &str) -> WorkerInfo {
    WorkerInfo {
        id: id.to_owned(),
        host: "42".to_owned(),
        pid: 7,
        version: "0.1.0".to_owned(),
        queues: vec!["default".to_owned(), "mail".to_owned()],
        slots: 20,
        running: 1,
        running_ids: vec!["a \"b\"".to_owned()],
        processed: 3,
        failed: 1,
        overrun: 2,
        started_at: 1_700_000_000_000,
        seen_at: 0,
    }
}

pub(super) async fn a_worker_is_registered_until_it_leaves(store: &dyn Subject) {
    for _ in 0..2 {
        assert_eq!(store.beat(&info("w1"), Some(60_000)).await.unwrap(), []);
    }
    assert_eq!(store.beat(&WorkerInfo { processed: 4, ..info("w2") }, Some(60_000)).await.unwrap(), []);
    let now_ms = store.now_us().await.unwrap() / 1_000;
    let mut workers = store.workers().await.unwrap();
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    for worker in &mut workers {
        assert!(now_ms.abs_diff(std::mem::take(&mut worker.seen_at)) < 10_000);
    }
    assert_eq!(workers, [info("w1"), WorkerInfo { processed: 4, ..info("w2") }]);
    for _ in 0..2 {
        store.leave("w1").await.unwrap();
        let left = store.workers().await.unwrap();
        assert_eq!(left.iter().map(|worker| &*worker.id).collect::<Vec<_>>(), ["w2"]);
    }
}

pub(super) async fn a_lost_worker_is_told_once(store: &dyn Subject) {
    const LOST_AFTER_MS: u64 = 200;
    store.beat(&info("lost"), Some(60_000)).await.unwrap();
    let seen_at = store.workers().await.unwrap()[0].seen_at;
    while store.now_us().await.unwrap() / 1_000 <= seen_at + LOST_AFTER_MS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (a, b) = (info("a"), info("b"));
    let (first, second) = tokio::join!(store.beat(&a, Some(LOST_AFTER_MS)), store.beat(&b, Some(LOST_AFTER_MS)));
    let third = store.beat(&b, Some(LOST_AFTER_MS)).await;
    let mut told = [first, second, third].map(Result::unwrap).concat();
    // On a slow machine they may lose each other.
    told.retain(|worker| worker.id == "lost");
    assert_eq!(told, [WorkerInfo { seen_at, ..info("lost") }]);
    assert!(store.workers().await.unwrap().iter().all(|worker| worker.id != "lost"));
    // It was only slow: its next beat registers it again.
    store.beat(&info("lost"), Some(60_000)).await.unwrap();
    assert!(store.workers().await.unwrap().iter().any(|worker| worker.id == "lost"));
}
