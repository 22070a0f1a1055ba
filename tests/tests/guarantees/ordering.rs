//! Ordering keys: tasks of a key run one at a time and in order, whatever happens to the workers.

use std::time::Duration;

use rustix::process::Signal;
use yadtq::{Call, Error, Retry, Revocation, Status};
use yadtq_tests::{tasks, until};

use super::{
    Bench,
    book::{Book, check},
    worker_with,
};

const WAIT: Duration = Duration::from_secs(90);
const KEYS: u32 = 50;
const EACH: u32 = 40;

#[test]
fn the_oracle_finds_violations() {
    let good = |key: u32| (0..EACH).flat_map(move |n| ["start", "end"].map(|what| format!("{what} {key} {n} 1 9")));
    let all = || (0..KEYS).flat_map(good).collect::<Vec<_>>();
    check(&all(), KEYS, EACH);
    let refused = |change: fn(&mut Vec<String>)| {
        let mut lines = all();
        change(&mut lines);
        std::panic::catch_unwind(|| check(&lines, KEYS, EACH)).is_err()
    };
    assert!(refused(|lines| lines.swap(1, 2)), "two at once");
    assert!(refused(|lines| drop(lines.drain(2..4))), "one is left out");
    assert!(refused(|lines| lines[3] = "fail 0 1 1 9".to_owned()), "a successor overtakes a retry");
    assert!(refused(|lines| drop(lines.splice(4..4, ["start 0 0 1 9".to_owned(), "end 0 0 1 9".to_owned()]))), "again");
    assert!(refused(|lines| drop(lines.pop())), "the last one never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_key_run_one_at_a_time_in_order_despite_kills_and_rebalances() {
    let bench = Bench::new("order").await;
    let directory = tempfile::tempdir().expect("a directory");
    let book = Book(directory.path().join("book"));
    let env = bench.env.clone().with("TEST_RECORD", book.0.to_str().expect("UTF-8"));
    let start = || worker_with(&env);
    let (mut first, mut second, mut third) = (start(), start(), start());
    for worker in [&first, &second, &third] {
        worker.event("partitions_assigned", |event| event["queue"] == "default").await;
    }
    // Every tenth task fails once, and one fails for good.
    let failures = |key: u32, n: u32| if (key, n) == (7, 5) { 2 } else { u32::from((key * 7 + n).is_multiple_of(10)) };
    let call = |n: u32, key: u32| {
        let ms = u64::from((key * 31 + n * 17) % 40);
        tasks::book.call(key, n, ms, failures(key, n)).ordering_key(format!("key-{key}"))
    };
    let calls = (0..EACH).flat_map(|n| (0..KEYS).map(move |key| call(n, key)));
    let handles = bench.client.send_many(calls).await;
    book.until_ended(400).await;
    book.kill(&mut first).await;
    book.until_ended(700).await;
    let fourth = start();
    fourth.event("partitions_assigned", |event| event["queue"] == "default").await;
    book.until_ended(1_000).await;
    book.kill(&mut second).await;
    book.until_ended(1_200).await;
    third.signal(Signal::TERM);
    assert!(third.end().await, "it ends well");
    let mut failed = 0;
    for handle in handles {
        match handle.expect("acknowledged").wait(WAIT).await {
            Ok(_) => {}
            Err(Error::TaskFailed { .. }) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed, 1, "the one that fails for good");
    let checked = check(&book.lines(), KEYS, EACH);
    println!("{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_key_blocks_no_other_key() {
    let bench = Bench::new("stuck").await;
    let worker = worker_with(&bench.env.clone().with("TEST_SLOTS", "1"));
    worker.event("partitions_assigned", |_| true).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ready");
    let client = &bench.client;
    // One task snoozes at the head of its lane, another one waits there for a retry far ahead.
    let snoozing = tasks::sleepy.call(file.clone()).ordering_key("snoozing").send(client).await.expect("acknowledged");
    let day = Duration::from_secs(24 * 3_600);
    let failing = Call::<(u32, String)>::named("flaky", (1,)).retry(Retry::new().base(365 * day).cap(365 * day));
    let failing = failing.ordering_key("failing").send(client).await.expect("acknowledged");
    let behind = |key: &str| tasks::nap.call(1).ordering_key(key);
    let after_snooze = behind("snoozing").send(client).await.expect("acknowledged");
    let after_failure = behind("failing").send(client).await.expect("acknowledged");
    until("it snoozes again", async || (worker.events("task_parked").len() >= 2).then_some(())).await;
    worker.event("task_retrying", |_| true).await;
    // These are in all partitions, so some are behind those two.
    let keyless = (0..100).map(|_| tasks::nap.call(1));
    let others = (0..100).map(|n| behind(&format!("other-{}", n % 50))).chain(keyless);
    for handle in client.send_many(others).await {
        handle.expect("acknowledged").wait(WAIT).await.expect("nothing is in its way");
    }
    for handle in [&after_snooze, &after_failure] {
        assert_eq!(handle.status().await.expect("redis answers"), Status::Queued, "it waits for its turn");
    }
    assert_eq!(failing.status().await.expect("redis answers"), Status::Retrying);
    std::fs::write(&file, "").expect("written");
    assert_eq!(snoozing.wait(WAIT).await.expect("it runs"), 1, "its first attempt");
    after_snooze.wait(WAIT).await.expect("its turn");
    // When the head ends, the next task runs.
    assert_eq!(failing.revoke().await.expect("an answer"), Revocation::Revoked);
    after_failure.wait(WAIT).await.expect("its turn");
    assert!(client.admin().scheduled(10).await.expect("kafka answers").tasks.is_empty(), "nothing was moved elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_place_retry_survives_its_worker() {
    let bench = Bench::new("inplace").await;
    let mut worker = bench.ready_worker().await;
    let slow = Retry::new().max(1).base(Duration::from_secs(60)).cap(Duration::from_secs(60));
    let mut lines = Vec::new();
    // There are several keys, so that one of them waits long: jitter may make any single delay zero.
    for n in 0..8 {
        let call = |task: &str| Call::<(u32, String)>::named(task.to_owned(), (1,)).ordering_key(format!("k{n}"));
        let head = call("flaky").retry(slow).send(&bench.client).await.expect("acknowledged");
        let next = tasks::nap.call(1).ordering_key(format!("k{n}")).send(&bench.client).await.expect("acknowledged");
        lines.push((head, next));
    }
    until("all have failed once", async || (worker.events("task_retrying").len() == 8).then_some(())).await;
    worker.kill().await;
    let next_owner = bench.worker();
    for (head, next) in lines {
        let info = bench.client.admin().task(head.id()).await.expect("redis answers").expect("a record");
        let due = info.eta;
        assert_eq!(head.wait(WAIT).await.expect("its second attempt").0, 2);
        assert!(due.is_none_or(|due| yadtq_tests::now_ms() >= yadtq_tests::ms(due)), "not before its time");
        next.wait(WAIT).await.expect("its turn");
        let at = |id: &yadtq::TaskId, name: &str| {
            next_owner.output().iter().position(|line| line.contains(name) && line.contains(id.as_str()))
        };
        if let (Some(ended), Some(begun)) = (at(head.id(), "task_succeeded"), at(next.id(), "task_started")) {
            assert!(ended < begun, "the successor waits for the second attempt");
        }
    }
    let attempts = next_owner.events("task_started").iter().filter(|event| event["task"] == "flaky").count();
    assert!(attempts > 0, "the next owner makes attempts");
    assert!(next_owner.events("task_started").iter().all(|event| event["task"] != "flaky" || event["attempt"] == 2));
}

#[tokio::test]
async fn options_that_contradict_an_ordering_key_are_refused() {
    let client = yadtq::Client::embedded();
    let call = || tasks::nap.call(1).ordering_key("k");
    let refused = [
        tasks::nap.call(1).ordering_key(""),
        tasks::nap.call(1).ordering_key("k".repeat(257)),
        call().priority(yadtq::Priority::High),
        call().countdown(Duration::from_secs(1)),
        call().eta(std::time::SystemTime::UNIX_EPOCH),
    ];
    for call in refused {
        let error = call.send(&client).await.expect_err("it is refused");
        assert!(error.to_string().contains("ordering_key"), "{error}");
    }
    call().unique("once", Duration::from_secs(60)).send(&client).await.expect("a unique one may have its order");
}
