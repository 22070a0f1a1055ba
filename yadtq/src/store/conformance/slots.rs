//! Free slots, and messages between workers.

use super::*;
use crate::{
    core::slots::{IdleSlots, TaskSet},
    store::{FreeSlots, WantedSlots},
    wire::offer::{FreeAgain, Offer, OfferedRecord, Place, WorkerMessage},
};

fn free(queue: &str, tasks: &[&str], count: usize) -> FreeSlots {
    FreeSlots { queue: queue.into(), tasks: TaskSet::new(tasks.iter().copied()).into(), count }
}

fn wanted(queue: &str, task: &str, count: usize) -> WantedSlots {
    WantedSlots { queue: queue.into(), task: task.into(), count }
}

async fn announce(store: &dyn Subject, by: &str, slots: FreeSlots) {
    store.announce(&by.into(), &[slots]).await.unwrap();
}

/// Sorted by worker.
async fn take(store: &dyn Subject, by: &str, wanted: WantedSlots) -> Vec<(String, usize)> {
    let taken = only(store.take_slots(&by.into(), &[wanted]).await);
    let mut taken: Vec<_> = taken.into_iter().map(|(worker, count)| (worker.to_string(), count)).collect();
    taken.sort();
    taken
}

pub(super) async fn announced_slots_are_taken_once_for_a_task_that_is_known(store: &dyn Subject) {
    let both = [free("a", &["add"], 2), free("b", &["add"], 1)];
    store.announce(&"w1".into(), &both).await.unwrap();
    announce(store, "w2", free("a", &["add", "mail: }\0ä"], 3)).await;
    assert!(take(store, "w3", wanted("a", "ad", 9)).await.is_empty());
    assert!(take(store, "w3", wanted("c", "add", 9)).await.is_empty());
    assert_eq!(take(store, "w3", wanted("a", "mail: }\0ä", 1)).await, [("w2".to_owned(), 1)]);
    assert!(take(store, "w2", wanted("a", "mail: }\0ä", 1)).await.is_empty(), "nobody takes its own");
    let wants = [wanted("b", "add", 1), wanted("a", "add", 3), wanted("a", "add", 9)];
    let mut taken = store.take_slots(&"w3".into(), &wants).await.unwrap().into_iter().map(Result::unwrap);
    assert_eq!(taken.next().unwrap(), [("w1".into(), 1)]);
    let counts = |taken: Vec<(_, usize)>| taken.into_iter().map(|(_, count)| count).sum::<usize>();
    assert_eq!((counts(taken.next().unwrap()), counts(taken.next().unwrap())), (3, 1));
    assert!(take(store, "w3", wanted("a", "add", 9)).await.is_empty());
}

/// Announcements and takes in a random order.
pub(super) async fn slots_are_as_the_pure_function_says(store: &dyn Subject) {
    let (mut model, mut random) = (IdleSlots::default(), 7_u64);
    let mut dice = move |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((random >> 33) % sides).unwrap()
    };
    let (workers, sets) = (["w1", "w2", "w3", "w4"], [&["add"][..], &["add", "mail"], &["mail"]]);
    for step in 0..200 {
        let (worker, count) = (workers[dice(4)].into(), dice(5));
        if dice(2) == 0 {
            let slots = free("q", sets[dice(3)], count);
            model.announce(&worker, &slots.tasks, count, 0);
            store.announce(&worker, &[slots]).await.unwrap();
        } else {
            let task = ["add", "mail"][dice(2)];
            let taken = only(store.take_slots(&worker, &[wanted("q", task, count)]).await);
            assert_eq!(taken, model.take(&worker, task, count, 0), "step {step}: {worker} takes {count} for {task}");
        }
    }
}

pub(super) async fn who_found_too_few_slots_is_woken_once(store: &dyn Subject) {
    let (mut first, mut second) = (open_control(store, "first").await, open_control(store, "second").await);
    assert!(take(store, "first", wanted("q", "add", 2)).await.is_empty());
    announce(store, "idle", free("q", &["add"], 1)).await;
    assert_eq!(next(&mut first).await, Notice::SlotsFree);
    assert_eq!(take(store, "first", wanted("q", "add", 1)).await, [("idle".to_owned(), 1)]);
    // Neither who found enough, nor who is idle itself.
    announce(store, "first", free("q", &["add"], 1)).await;
    assert!(take(store, "second", wanted("q", "mail", 1)).await.is_empty());
    announce(store, "second", free("q", &["add"], 1)).await;
    for (worker, channel) in [("first", &mut first), ("second", &mut second)] {
        let message = WorkerMessage::Declined(vec![PLACE]);
        assert!(only(store.send(&[(worker.into(), message)]).await));
        assert_eq!(next(channel).await, Notice::Declined(vec![PLACE]), "nothing came before it");
    }
}

const PLACE: Place = Place { source: 1, partition: 2, epoch: 3, offset: -4 };

pub(super) async fn messages_reach_the_worker(store: &dyn Subject) {
    let mut control = open_control(store, "r").await;
    let record = OfferedRecord {
        place: PLACE,
        topic: "yadtq.default".into(),
        timestamp_ms: Some(7),
        key: Some("k\0\r\n".into()),
        value: vec![0xff; 100_000].into(),
        headers: vec![("h".to_owned(), "ä".into())],
    };
    let offer = Offer { owner: "o".into(), records: vec![record.clone(), OfferedRecord { key: None, ..record }] };
    let completed = WorkerMessage::Completed(vec![PLACE; 300]);
    let free = FreeAgain { worker: "o".into(), queue: "q".into(), task: "add".into(), count: 2 };
    for (message, notice) in [
        (WorkerMessage::Offer(offer.clone()), Notice::Offer(offer)),
        (completed, Notice::Completed(vec![PLACE; 300])),
        (WorkerMessage::Declined(vec![PLACE]), Notice::Declined(vec![PLACE])),
        (WorkerMessage::NoSlot(vec![PLACE]), Notice::NoSlot(vec![PLACE])),
        (WorkerMessage::FreeAgain(free.clone()), Notice::FreeAgain(free)),
    ] {
        assert!(only(store.send(&[("r".into(), message)]).await));
        assert_eq!(next(&mut control).await, notice);
    }
    if store.sees_subscriptions() {
        let nobody = [("nobody".into(), WorkerMessage::Declined(vec![PLACE]))];
        assert!(!only(store.send(&nobody).await));
    }
}
