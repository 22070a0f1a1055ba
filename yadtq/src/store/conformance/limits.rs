//! What every store must do for limits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Subject;
use crate::{
    core::limits::{self, Admission, Arrival, PERMIT_RETRY_SPACING_MS, Permits, RATE_SLACK_US, Rate, RateState},
    store::{PermitKey, PermitRequest, RateRequest},
};

const LEASE_MS: u64 = 60_000;

fn dice() -> impl FnMut(u64) -> u64 {
    let mut random = 7_u64;
    move |sides| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    }
}

async fn admit(store: &dyn Subject, requests: &[RateRequest]) -> Vec<Admission> {
    store.admit(requests).await.unwrap().into_iter().map(Result::unwrap).collect()
}

async fn acquire(store: &dyn Subject, request: PermitRequest) -> Option<u64> {
    store.acquire_permit(LEASE_MS, &[request]).await.unwrap().remove(0).unwrap()
}

fn permit(limit: &str, run: u64) -> PermitKey {
    PermitKey { limit: limit.into(), run: format!("{run}/1").into() }
}

/// Hour long intervals, so that the time between the two clocks decides nothing: waits agree to within a few seconds.
pub(super) async fn admissions_are_as_the_pure_function_says(store: &dyn Subject) {
    let start = store.now_us().await.unwrap();
    let (mut model, mut dice) = (BTreeMap::<Arc<str>, RateState>::new(), dice());
    let mut counts = [0; 2];
    for _ in 0..60 {
        let request = |dice: &mut dyn FnMut(u64) -> u64| RateRequest {
            limit: if dice(2) > 0 { "task:a".into() } else { "task:a:\"}{\"".into() },
            rate: Rate::per_hour(1 + dice(3)).burst(1 + u32::try_from(dice(4)).unwrap()),
            arrival: [Arrival::New, Arrival::New, Arrival::Reserved, Arrival::Waiting]
                [usize::try_from(dice(4)).unwrap()],
        };
        let requests: Vec<RateRequest> = (0..1 + dice(8)).map(|_| request(&mut dice)).collect();
        let answers = admit(store, &requests).await;
        for (RateRequest { limit, rate, arrival }, answer) in requests.iter().zip(answers) {
            let expected = limits::admit(model.entry(Arc::clone(limit)).or_default(), rate, *arrival, start);
            match (answer, expected) {
                (Admission::Now, Admission::Now) => counts[0] += 1,
                (Admission::In(answer), Admission::In(expected)) => {
                    assert!(answer.abs_diff(expected) < 50_000_000, "{answer} {expected} {rate:?} {arrival:?}");
                    counts[1] += 1;
                }
                other => panic!("{other:?} {rate:?} {arrival:?}"),
            }
        }
    }
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
}

pub(super) async fn limits_are_kept_apart(store: &dyn Subject) {
    let request = |limit: &str| RateRequest { limit: limit.into(), rate: Rate::per_hour(1), arrival: Arrival::New };
    let names = ["task:a", "task:a:1", "task:a:\"1\"", "queue:a", "task:ä:{}"];
    let all: Vec<_> = names.iter().chain(&names).map(|name| request(name)).collect();
    let answers = admit(store, &all).await;
    assert!(answers[..5].iter().all(|answer| *answer == Admission::Now), "{answers:?}");
    let hour = |answer: &Admission| matches!(answer, Admission::In(us) if us.abs_diff(3_600_000_000) < 20_000_000);
    assert!(answers[5..].iter().all(hour), "{answers:?}");
    let quick = RateRequest { limit: "quick".into(), rate: Rate::per_second(10_000), arrival: Arrival::New };
    let answers = admit(store, &vec![quick.clone(); 600]).await;
    let waits: Vec<u64> = answers
        .iter()
        .filter_map(|answer| match answer {
            Admission::In(us) => Some(*us),
            Admission::Now => None,
        })
        .collect();
    assert!(waits.iter().all(|&us| us <= 60_000), "{waits:?}");
    let back = RateRequest { arrival: Arrival::Reserved, ..quick };
    let answers = admit(store, &vec![back; 600]).await;
    assert!(
        answers.iter().all(|answer| *answer == Admission::Now),
        "600 of them come together, {RATE_SLACK_US} us allow for it"
    );
}

pub(super) async fn permits_are_as_the_pure_function_says(store: &dyn Subject) {
    let start = store.now_us().await.unwrap() / 1_000;
    let (mut model, mut dice) = (BTreeMap::<Arc<str>, Permits>::new(), dice());
    for step in 0..200 {
        let key = permit(if dice(2) > 0 { "a" } else { "b" }, dice(6));
        if dice(3) == 0 {
            store.release_permit(std::slice::from_ref(&key)).await.unwrap();
            model.entry(key.limit).or_default().runs.remove(&key.run);
            continue;
        }
        let request = PermitRequest { max_running: 2, holds: dice(8) == 0, key };
        let now = store.now_us().await.unwrap() / 1_000;
        let PermitRequest { key, max_running, holds } = &request;
        let permits = model.entry(Arc::clone(&key.limit)).or_default();
        let expected = limits::acquire_permit(permits, &key.run, *max_running, *holds, LEASE_MS, start);
        let answer = acquire(store, request.clone()).await;
        assert_eq!(answer.is_some(), expected.is_some(), "{request:?} at step {step}");
        if let (Some(answer), Some(expected)) = (answer, expected) {
            // In the model no time passes.
            assert!(
                (PERMIT_RETRY_SPACING_MS..=expected).contains(&answer) || answer + (now - start) + 5_000 >= expected,
                "{answer} {expected}"
            );
        }
    }
    assert!(store.now_us().await.unwrap() / 1_000 - start < LEASE_MS, "no lease was over");
}

pub(super) async fn what_is_returned_is_free(store: &dyn Subject) {
    let run = |n| PermitRequest { key: permit("task:x", n), max_running: 1, holds: false };
    assert_eq!(acquire(store, run(1)).await, None);
    assert_eq!(acquire(store, run(1)).await, None, "sent twice");
    assert!(acquire(store, run(2)).await.is_some_and(|ms| (1..=PERMIT_RETRY_SPACING_MS).contains(&ms)));
    store.release_permit(&[run(2).key, run(1).key, run(1).key]).await.unwrap();
    assert_eq!(acquire(store, run(2)).await, None);
    let short = store.acquire_permit(50, &[PermitRequest { holds: true, ..run(2) }]).await.unwrap().remove(0).unwrap();
    assert_eq!(short, None);
    // A worker that died: its permit lapses with the lease.
    let lapsed = async {
        while acquire(store, run(3)).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lapsed).await.unwrap();
}
