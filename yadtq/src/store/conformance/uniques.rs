//! Unique keys.

use super::*;

pub(super) fn key(task: &str, key: &str) -> UniqueKey {
    UniqueKey { task: task.into(), key: key.into() }
}

pub(super) fn reservation(key: UniqueKey, id: &TaskId) -> Reservation {
    Reservation { key, id: id.clone(), ttl_ms: 60_000 }
}

pub(super) async fn reserve(store: &dyn Subject, key: &UniqueKey, id: &TaskId) -> Reserved {
    only(store.reserve(&[reservation(key.clone(), id)]).await)
}

pub(super) async fn confirm(store: &dyn Subject, key: &UniqueKey, id: &TaskId) -> bool {
    only(store.confirm(&[(key.clone(), id.clone())]).await)
}

/// A key that no other test uses.
pub(super) fn fresh_key() -> UniqueKey {
    key("add", TaskId::new().as_str())
}

pub(super) async fn a_key_is_whose_it_was_first(store: &dyn Subject) {
    let (key, first, second) = (fresh_key(), TaskId::new(), "a b\n}: pending c".parse::<TaskId>().unwrap());
    let taken = |id: &TaskId, queued| Reserved::Taken(Taken { id: id.clone(), queued });
    assert!(!confirm(store, &key, &first).await, "it is nobody's");
    for call in ["first", "sent twice"] {
        assert_eq!(reserve(store, &key, &first).await, Reserved::New, "{call}");
    }
    assert_eq!(reserve(store, &key, &second).await, taken(&first, false));
    assert!(!confirm(store, &key, &second).await);
    assert!(confirm(store, &key, &first).await && confirm(store, &key, &first).await, "sent twice");
    for id in [&first, &second] {
        assert_eq!(reserve(store, &key, id).await, taken(&first, true));
    }
    // In one batch, and with an id that is made of what the store writes around it.
    let other = fresh_key();
    let answers =
        store.reserve(&[reservation(other.clone(), &second), reservation(other.clone(), &first)]).await.unwrap();
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Reserved::New, taken(&second, false)]);
    assert!(confirm(store, &other, &second).await);
    assert_eq!(reserve(store, &other, &first).await, taken(&second, true));
    assert!(store.reserve(&[]).await.unwrap().is_empty() && store.confirm(&[]).await.unwrap().is_empty());
}

/// All that two callers can do in five steps, on the store and on the pure transitions.
pub(super) async fn every_history_of_a_key(store: &dyn Subject) {
    const STEPS: u32 = 5;
    let ids = [TaskId::new(), TaskId::new()];
    let mut worlds: Vec<(UniqueKey, Option<Taken>)> = (0..4_usize.pow(STEPS)).map(|_| (fresh_key(), None)).collect();
    for step in 0..STEPS {
        let (mut reserving, mut confirming) = (Vec::new(), Vec::new());
        for (history, (key, pure)) in worlds.iter_mut().enumerate() {
            let action = history / 4_usize.pow(step) % 4;
            let id = &ids[action % 2];
            if action < 2 {
                reserving.push((reservation(key.clone(), id), unique::reserve(pure, id), history));
            } else {
                confirming.push(((key.clone(), id.clone()), unique::confirm(pure, id), history));
            }
        }
        let asked = reserving.iter().map(|(asked, ..)| asked.clone()).collect::<Vec<_>>();
        for (answer, (_, expected, history)) in store.reserve(&asked).await.unwrap().into_iter().zip(reserving) {
            assert_eq!(answer.unwrap(), expected, "history {history:b}, step {step}");
        }
        let asked = confirming.iter().map(|(asked, ..)| asked.clone()).collect::<Vec<_>>();
        for (answer, (_, expected, history)) in store.confirm(&asked).await.unwrap().into_iter().zip(confirming) {
            assert_eq!(answer.unwrap(), expected, "history {history:b}, step {step}");
        }
    }
}

/// By the task and by the bytes, whatever separates them in the store.
pub(super) async fn keys_are_kept_apart(store: &dyn Subject) {
    let keys =
        [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("a", "b"), ("a", "B"), ("a", "{b}"), ("a}", "b"), ("a", "b\0 ä")];
    for (task, name) in keys {
        assert_eq!(reserve(store, &key(task, name), &TaskId::new()).await, Reserved::New, "{task} {name}");
    }
}

pub(super) async fn a_key_is_free_again_in_time(store: &dyn Subject) {
    let (key, first, second) = (fresh_key(), TaskId::new(), TaskId::new());
    let brief = Reservation { ttl_ms: 300, ..reservation(key.clone(), &first) };
    assert_eq!(only(store.reserve(&[brief]).await), Reserved::New);
    let until = store.now_us().await.unwrap() + 300_000;
    // Neither a confirmation nor another caller prolongs it.
    assert!(confirm(store, &key, &first).await);
    assert_ne!(reserve(store, &key, &second).await, Reserved::New);
    while store.now_us().await.unwrap() <= until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!confirm(store, &key, &first).await);
    assert_eq!(reserve(store, &key, &second).await, Reserved::New);
}
