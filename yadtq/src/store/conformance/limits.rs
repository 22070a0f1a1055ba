//! What every store must do for limits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Subject;
use crate::{
    core::{
        limits::{
            self, Admission, Arrival, PERMIT_RETRY_SPACING_MS, PermitTerms, Permits, RATE_SLACK_US, RECHECK_US, Rate,
            RateState,
        },
        names::TaskId,
    },
    store::{PermitKey, PermitRequest, RateRequest},
};

const LEASE_MS: u64 = 60_000;
const TERMS: PermitTerms = PermitTerms { lease_ms: LEASE_MS, take_over: true };

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
    store.acquire_permit(TERMS, &[request]).await.unwrap().remove(0).unwrap()
}

fn permit(limit: &str, run: u64) -> PermitKey {
    PermitKey { limit: limit.into(), run: format!("{run}/1").into() }
}

/// Intervals of many minutes, so that the time between the two clocks decides nothing: waits agree to within a few seconds.
pub(super) async fn admissions_are_as_the_pure_function_says(store: &dyn Subject) {
    let start = store.now_us().await.unwrap();
    let (mut model, mut dice) = (BTreeMap::<Arc<str>, RateState>::new(), dice());
    let mut counts = [0; 3];
    for round in 0..60 {
        let which = |round: u64| format!("task:a:\"}}{{{}", round / 6).into();
        let request = |dice: &mut dyn FnMut(u64) -> u64| RateRequest {
            task: format!("t{}", dice(20)).parse().unwrap(),
            limit: which(round),
            rate: Rate::per_hour(1 << (round / 6 % 3)).burst(1 + u32::try_from(round / 18).unwrap()),
            arrival: [Arrival::New, Arrival::New, Arrival::Turn, Arrival::Waiting][usize::try_from(dice(4)).unwrap()],
        };
        let requests: Vec<RateRequest> = (0..1 + dice(8)).map(|_| request(&mut dice)).collect();
        let answers = admit(store, &requests).await;
        for (RateRequest { task, limit, rate, arrival }, answer) in requests.iter().zip(answers) {
            let expected = limits::admit(model.entry(Arc::clone(limit)).or_default(), rate, *arrival, task, start);
            match (answer, expected) {
                (Admission::Now, Admission::Now) => counts[0] += 1,
                (Admission::In(answer), Admission::In(expected)) => {
                    assert!(answer.abs_diff(expected) < 50_000_000, "{answer} {expected} {rate:?} {arrival:?}");
                    counts[1] += 1;
                }
                (Admission::AskAgain(answer), Admission::AskAgain(expected)) => {
                    assert_eq!(answer, expected, "so many are in front: {rate:?} {arrival:?}");
                    counts[2] += 1;
                }
                other => panic!("{other:?} {rate:?} {arrival:?}"),
            }
        }
    }
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
}

fn tasks(count: u64) -> impl Iterator<Item = TaskId> {
    (0..count).map(|number| format!("t{number}").parse().unwrap())
}

pub(super) async fn limits_are_kept_apart(store: &dyn Subject) {
    let request = |(task, limit): (TaskId, &str)| RateRequest {
        task,
        limit: limit.into(),
        rate: Rate::per_hour(1),
        arrival: Arrival::New,
    };
    let names = ["task:a", "task:a:1", "task:a:\"1\"", "queue:a", "task:ä:{}"];
    let all: Vec<_> = tasks(10).zip(names.into_iter().cycle()).map(request).collect();
    let answers = admit(store, &all).await;
    assert!(answers[..5].iter().all(|answer| *answer == Admission::Now), "{answers:?}");
    assert!(answers[5..].iter().all(|answer| *answer == Admission::AskAgain(RECHECK_US)), "{answers:?}");
    let quick = |arrival| {
        let of = move |task| RateRequest { task, limit: "quick".into(), rate: Rate::per_second(10_000), arrival };
        tasks(600).map(of).collect::<Vec<_>>()
    };
    let answers = admit(store, &quick(Arrival::New)).await;
    let is_soon = |answer: &Admission| matches!(answer, Admission::Now | Admission::In(..=60_000));
    assert!(answers.iter().all(is_soon), "{answers:?}");
    let answers = admit(store, &quick(Arrival::Turn)).await;
    assert!(
        answers.iter().all(|answer| *answer == Admission::Now),
        "600 of them come together, {RATE_SLACK_US} us allow for it"
    );
}

pub(super) async fn a_line_moves_at_the_present_rate_and_is_left_by_who_starts(store: &dyn Subject) {
    let ask = async |task: &str, rate: Rate, arrival| {
        let request = RateRequest { task: task.parse().unwrap(), limit: "task:a".into(), rate, arrival };
        admit(store, &[request]).await.remove(0)
    };
    let (slow, fast) = (Rate::per_hour(1), Rate::per_second(10_000));
    assert_eq!(ask("first", slow, Arrival::New).await, Admission::Now);
    for task in tasks(100) {
        assert!(matches!(ask(task.as_str(), slow, Arrival::New).await, Admission::AskAgain(RECHECK_US..)));
    }
    let last = ask("last", fast, Arrival::New).await;
    assert!(matches!(last, Admission::In(..=1_000_000)), "{last:?}");
    let starts = async |task: &str| while ask(task, fast, Arrival::New).await != Admission::Now {};
    let all = async {
        for task in tasks(100) {
            starts(task.as_str()).await;
        }
        starts("last").await;
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("an hour for each at the earlier rate");
    let next = ask("next", slow, Arrival::New).await;
    assert!(matches!(next, Admission::Now | Admission::In(..=1_000_000)), "nobody is in front: {next:?}");
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
        let expected = limits::acquire_permit(permits, &key.run, *max_running, *holds, TERMS, start);
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
    let short = PermitTerms { lease_ms: 50, ..TERMS };
    let kept =
        store.acquire_permit(short, &[PermitRequest { holds: true, ..run(2) }]).await.unwrap().remove(0).unwrap();
    assert_eq!(kept, None);
    // A worker that died: its permit lapses with the lease.
    let lapsed = async {
        while acquire(store, run(3)).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lapsed).await.unwrap();
}

pub(super) async fn after_an_outage_lapsed_permits_are_left_to_their_runs(store: &dyn Subject) {
    let run = |n, holds| PermitRequest { key: permit("task:x", n), max_running: 1, holds };
    let ask = async |request, lease_ms, take_over| {
        let terms = PermitTerms { lease_ms, take_over };
        store.acquire_permit(terms, &[request]).await.unwrap().remove(0).unwrap()
    };
    assert_eq!(ask(run(1, false), 1, true).await, None);
    let lapsed_us = store.now_us().await.unwrap() + 10_000;
    while store.now_us().await.unwrap() < lapsed_us {}
    assert!(ask(run(2, false), 1, false).await.is_some(), "its run may go on, and could not say so");
    assert_eq!(ask(run(1, true), 1, false).await, None);
    let lapsed_us = store.now_us().await.unwrap() + 10_000;
    while store.now_us().await.unwrap() < lapsed_us {}
    assert_eq!(ask(run(2, false), LEASE_MS, true).await, None);
    assert!(ask(run(1, false), LEASE_MS, true).await.is_some());
}
