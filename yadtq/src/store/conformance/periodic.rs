//! What every store must do for periodic tasks.

use std::{collections::BTreeMap, sync::Arc};

use super::Subject;
use crate::core::ticks::{Declaration, Declared, Known, Missed, declare};

fn declaration(name: &str, now: u64) -> Declaration {
    Declaration {
        name: name.into(),
        schedule: "0 3 * * *".into(),
        zone: Some("Europe/Berlin".into()),
        missed: Missed::RunOnce,
        task: "report".into(),
        queue: "default".into(),
        next: Some(now + 1_000),
        last: None,
        now,
    }
}

async fn known(store: &dyn Subject, by: &Declaration) -> Known {
    store.declare(std::slice::from_ref(by)).await.unwrap().remove(0).unwrap()
}

pub(super) async fn the_latest_acknowledged_tick_only_grows(store: &dyn Subject) {
    let now = store.now_us().await.unwrap() / 1_000;
    let by = |last| Declaration { last, ..declaration("nightly", now) };
    for (known_to_worker, last) in
        [(None, None), (Some(7), Some(7)), (Some(6), Some(7)), (None, Some(7)), (Some(10), Some(10))]
    {
        for _ in 0..2 {
            assert_eq!(
                known(store, &by(known_to_worker)).await,
                Known { last, since: now },
                "sent again, the answer is the same"
            );
        }
    }
}

pub(super) async fn periodic_tasks_are_listed_by_name(store: &dyn Subject) {
    assert!(store.periodics().await.unwrap().is_empty());
    let now = store.now_us().await.unwrap() / 1_000;
    let every = Declaration { schedule: "every 10s".into(), zone: None, next: None, ..declaration("b", now) };
    let tasks = [every, declaration("c", now), declaration("a", now)];
    let answers = store.declare(&tasks).await.unwrap();
    assert!(answers.iter().all(|answer| *answer.as_ref().unwrap() == Known { last: None, since: now }));
    let listed = store.periodics().await.unwrap();
    assert_eq!(listed.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "b", "c"]);
    let [(_, a), (_, b), _] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((a.zone.as_deref(), a.next, a.declared_at), (Some("Europe/Berlin"), Some(now + 1_000), now));
    assert_eq!((&*b.schedule, b.zone.as_deref(), b.next, b.last), ("every 10s", None, None, None));
}

pub(super) async fn declarations_are_as_the_pure_function_says(store: &dyn Subject) {
    let start = store.now_us().await.unwrap() / 1_000;
    let mut model = BTreeMap::<Arc<str>, Option<Declared>>::new();
    let mut random = 7_u64;
    let mut dice = |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    for step in 0..300 {
        let optional = |roll: u64| (roll > 0).then_some(start + roll);
        let by = Declaration {
            schedule: if dice(6) > 0 { "0 3 * * *".into() } else { "every 1s".into() },
            zone: (dice(6) > 0).then(|| "UTC".into()),
            missed: if dice(2) > 0 { Missed::Skip } else { Missed::RunOnce },
            queue: if dice(2) > 0 { "default".into() } else { "mail".into() },
            next: optional(dice(3) * 60_000),
            last: optional(dice(50)),
            ..declaration(if dice(2) > 0 { "a" } else { "b" }, start + step)
        };
        let expected = declare(model.entry(Arc::clone(&by.name)).or_default(), &by);
        assert_eq!(known(store, &by).await, expected, "{by:?}");
    }
    let model: Vec<_> = model.into_iter().map(|(name, state)| (name, state.unwrap())).collect();
    assert_eq!(store.periodics().await.unwrap(), model);
}
