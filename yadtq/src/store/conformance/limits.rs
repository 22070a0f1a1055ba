//! What every store must do for limits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Subject;
use crate::{
    core::limits::{self, Admission, LOOK_MS, Pace, Places, Rate, SLACK_US, Turn},
    store::{Entry, Occupation, Place},
};

const LEASE_MS: u64 = 60_000;

fn dice() -> impl FnMut(u64) -> u64 {
    let mut random = 7_u64;
    move |sides| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    }
}

async fn admitted(store: &dyn Subject, entries: &[Entry]) -> Vec<Admission> {
    store.admit(entries).await.unwrap().into_iter().map(Result::unwrap).collect()
}

async fn occupied(store: &dyn Subject, run: Occupation) -> Option<u64> {
    store.occupy(LEASE_MS, &[run]).await.unwrap().remove(0).unwrap()
}

fn place(limit: &str, run: u64) -> Place {
    Place { limit: limit.into(), run: format!("{run}/1").into() }
}

/// Hour long intervals, so that the time between the two clocks decides nothing: waits agree to within a few seconds.
pub(super) async fn admissions_are_as_the_pure_function_says(store: &dyn Subject) {
    let start = store.now_us().await.unwrap();
    let (mut model, mut dice) = (BTreeMap::<Arc<str>, Pace>::new(), dice());
    let mut counts = [0; 2];
    for _ in 0..60 {
        let entry = |dice: &mut dyn FnMut(u64) -> u64| Entry {
            limit: if dice(2) > 0 { "task:a".into() } else { "task:a:\"}{\"".into() },
            rate: Rate::per_hour(1 + dice(3)).burst(1 + u32::try_from(dice(4)).unwrap()),
            turn: [Turn::New, Turn::New, Turn::Holds, Turn::Waits][usize::try_from(dice(4)).unwrap()],
        };
        let entries: Vec<Entry> = (0..1 + dice(8)).map(|_| entry(&mut dice)).collect();
        let told = admitted(store, &entries).await;
        for (Entry { limit, rate, turn }, told) in entries.iter().zip(told) {
            let expected = limits::admit(model.entry(Arc::clone(limit)).or_default(), rate, *turn, start);
            match (told, expected) {
                (Admission::Now, Admission::Now) => counts[0] += 1,
                (Admission::In(told), Admission::In(expected)) => {
                    assert!(told.abs_diff(expected) < 50_000_000, "{told} {expected} {rate:?} {turn:?}");
                    counts[1] += 1;
                }
                other => panic!("{other:?} {rate:?} {turn:?}"),
            }
        }
    }
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
}

pub(super) async fn limits_are_told_apart(store: &dyn Subject) {
    let entry = |limit: &str| Entry { limit: limit.into(), rate: Rate::per_hour(1), turn: Turn::New };
    let names = ["task:a", "task:a:1", "task:a:\"1\"", "queue:a", "task:ä:{}"];
    let all: Vec<_> = names.iter().chain(&names).map(|name| entry(name)).collect();
    let told = admitted(store, &all).await;
    assert!(told[..5].iter().all(|told| *told == Admission::Now), "{told:?}");
    let hour = |told: &Admission| matches!(told, Admission::In(us) if us.abs_diff(3_600_000_000) < 20_000_000);
    assert!(told[5..].iter().all(hour), "{told:?}");
    let quick = Entry { limit: "quick".into(), rate: Rate::per_second(10_000), turn: Turn::New };
    let told = admitted(store, &vec![quick.clone(); 600]).await;
    let waits: Vec<u64> = told
        .iter()
        .filter_map(|told| match told {
            Admission::In(us) => Some(*us),
            Admission::Now => None,
        })
        .collect();
    assert!(waits.iter().all(|&us| us <= 60_000), "{waits:?}");
    let back = Entry { turn: Turn::Holds, ..quick };
    let told = admitted(store, &vec![back; 600]).await;
    assert!(told.iter().all(|told| *told == Admission::Now), "600 of them come together, {SLACK_US} us allow for it");
}

pub(super) async fn places_are_as_the_pure_function_says(store: &dyn Subject) {
    let start = store.now_us().await.unwrap() / 1_000;
    let (mut model, mut dice) = (BTreeMap::<Arc<str>, Places>::new(), dice());
    for step in 0..200 {
        let place = place(if dice(2) > 0 { "a" } else { "b" }, dice(6));
        if dice(3) == 0 {
            store.vacate(std::slice::from_ref(&place)).await.unwrap();
            model.entry(place.limit).or_default().runs.remove(&place.run);
            continue;
        }
        let run = Occupation { most: 2, holds: dice(8) == 0, place };
        let now = store.now_us().await.unwrap() / 1_000;
        let Occupation { place, most, holds } = &run;
        let places = model.entry(Arc::clone(&place.limit)).or_default();
        let expected = limits::occupy(places, &place.run, *most, *holds, LEASE_MS, start);
        let told = occupied(store, run.clone()).await;
        assert_eq!(told.is_some(), expected.is_some(), "{run:?} at step {step}");
        if let (Some(told), Some(expected)) = (told, expected) {
            // In the model no time passes.
            assert!(
                (LOOK_MS..=expected).contains(&told) || told + (now - start) + 5_000 >= expected,
                "{told} {expected}"
            );
        }
    }
    assert!(store.now_us().await.unwrap() / 1_000 - start < LEASE_MS, "no lease was over");
}

pub(super) async fn what_is_vacated_is_free(store: &dyn Subject) {
    let run = |n| Occupation { place: place("task:x", n), most: 1, holds: false };
    assert_eq!(occupied(store, run(1)).await, None);
    assert_eq!(occupied(store, run(1)).await, None, "sent twice");
    assert!(occupied(store, run(2)).await.is_some_and(|ms| (1..=LOOK_MS).contains(&ms)));
    store.vacate(&[run(2).place, run(1).place, run(1).place]).await.unwrap();
    assert_eq!(occupied(store, run(2)).await, None);
    let short = store.occupy(50, &[Occupation { holds: true, ..run(2) }]).await.unwrap().remove(0).unwrap();
    assert_eq!(short, None);
    // A worker that died: its place lapses with the lease.
    let lapsed = async {
        while occupied(store, run(3)).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lapsed).await.unwrap();
}
