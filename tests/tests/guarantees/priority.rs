//! A full backlog of low priority delays a high task only by the running tasks and one round of weights.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use yadtq::{Client, Context, MissingState, Priority, TaskHandle, Worker};
use yadtq_tests::{TEST_TIMEOUT, hold, process::Process, tasks, until};

use super::{Bench, worker_with};

const BACKLOG: u64 = 100_000;
/// How long a task runs, in ms: longer than it takes to receive another task.
const NAP: u64 = 20;
const SLOTS: usize = 2;
/// How many low tasks may start while the test's own thread stands still. Without priorities it would be the whole backlog.
const STANDSTILL: usize = 1_000;
/// Number of high tasks that are sent at once.
const BURST: usize = 60;
/// A round of weights: six high, three normal, one low.
const TURNS_PER_ROUND: usize = 10;
const WAIT: Duration = Duration::from_secs(60);

/// Events of the worker, in the order of its log.
#[derive(Debug, PartialEq)]
enum Seen {
    Received(String),
    Started(String),
}

fn seen(worker: &Process) -> Vec<Seen> {
    let read = |line: &String| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        let id = event["task_id"].as_str()?.to_owned();
        match event["event"].as_str()? {
            "task_received" => Some(Seen::Received(id)),
            "task_started" => Some(Seen::Started(id)),
            _ => None,
        }
    };
    worker.output().iter().filter_map(read).collect()
}

/// Sends a backlog of low tasks, and starts a worker that has taken as many of them as it may.
async fn backlog(test: &str, strict: bool) -> (Bench, Process) {
    let bench = Bench::new(test).await;
    let calls = (0..BACKLOG).map(|_| tasks::nap.call(NAP).priority(Priority::Low).ignore_result());
    for answer in bench.client.send_many(calls).await {
        answer.expect("acknowledged");
    }
    let env = bench.env.clone().with("TEST_SLOTS", &SLOTS.to_string());
    let worker = worker_with(&if strict { env.with("TEST_STRICT", "1") } else { env });
    worker.event("task_started", |_| true).await;
    // The worker takes no more than this from a topic; its consumer fetches further ahead.
    until("all it may have is in hand", async || (worker.events("task_received").len() > 4_000).then_some(())).await;
    (bench, worker)
}

/// How many other tasks started between the receipt of a task and its start.
fn overtaken_by(seen: &[Seen], id: &str) -> usize {
    let at = |what: Seen| seen.iter().position(|seen| *seen == what).unwrap_or_else(|| panic!("{what:?} is missing"));
    let (received, started) = (at(Seen::Received(id.to_owned())), at(Seen::Started(id.to_owned())));
    seen[received..started].iter().filter(|seen| matches!(seen, Seen::Started(_))).count()
}

async fn send(client: &Client, priority: Priority, count: usize) -> Vec<TaskHandle<u64>> {
    let calls = (0..count).map(|_| tasks::nap.call(NAP).priority(priority));
    client.send_many(calls).await.into_iter().map(|handle| handle.expect("acknowledged")).collect()
}

async fn all_end(handles: &[TaskHandle<u64>]) {
    for result in join_all(handles.iter().map(|handle| handle.wait(WAIT))).await {
        assert_eq!(result.expect("a result"), NAP);
    }
}

/// Waits for the ends in the worker's log too, because a result may arrive before the log lines of the process.
async fn all_end_at(worker: &Process, handles: &[TaskHandle<u64>]) {
    all_end(handles).await;
    until("its log has them", async || {
        let started = worker.events("task_started");
        let logged: HashSet<_> = started.iter().filter_map(|event| event["task_id"].as_str()).collect();
        handles.iter().all(|handle| logged.contains(handle.id().as_str())).then_some(())
    })
    .await;
}

/// The high topic does not exist when the worker starts.
async fn first_high_task(bench: &Bench, worker: &Process) {
    let sent = Instant::now();
    all_end(&send(&bench.client, Priority::High, 1).await).await;
    assert!(sent.elapsed() < Duration::from_secs(30), "its topic was found after {:?}", sent.elapsed());
    worker.event("priority_joined", |event| event["priority"] == "high").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_task_waits_for_running_tasks_and_one_round_at_most() {
    let (bench, worker) = backlog("weights", false).await;
    first_high_task(&bench, &worker).await;
    for _ in 0..10 {
        let high = send(&bench.client, Priority::High, 1).await;
        let acknowledged = worker.events("task_started").len();
        all_end_at(&worker, &high).await;
        let id = high[0].id().to_string();
        let overtaken = overtaken_by(&seen(&worker), &id);
        assert!(overtaken <= TURNS_PER_ROUND, "{overtaken} tasks started first");
        let starts = worker.events("task_started");
        let at = starts.iter().position(|event| event["task_id"] == *id).expect("it started");
        // The task may even have started before the acknowledgement arrived.
        let before = at.saturating_sub(acknowledged);
        hold("tasks that started after it was acknowledged", before, SLOTS + TURNS_PER_ROUND, STANDSTILL);
    }

    // Many high tasks take turns with the low ones: neither priority starves.
    let high: Vec<_> = send(&bench.client, Priority::High, BURST).await;
    all_end_at(&worker, &high).await;
    let ids: HashSet<_> = high.iter().map(|handle| handle.id().to_string()).collect();
    let order = seen(&worker);
    let is_high = |seen: &Seen| matches!(seen, Seen::Started(id) if ids.contains(id));
    let first = order.iter().position(is_high).expect("the first");
    let last = order.iter().rposition(is_high).expect("the last");
    let others = order[first..last].iter().filter(|seen| matches!(seen, Seen::Started(_)) && !is_high(seen)).count();
    // One low task runs for six high ones, with a tolerance of one round and of tasks that were already claimed.
    assert!(others >= BURST / 12, "{others} low tasks in {BURST} high ones");
    assert!(others <= BURST / 6 + TURNS_PER_ROUND, "{others} low tasks in {BURST} high ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_strict_priority_a_high_task_waits_for_running_tasks_only() {
    let (bench, worker) = backlog("strict", true).await;
    first_high_task(&bench, &worker).await;
    for count in [1, 1, 1, 1, 1, BURST] {
        let high = send(&bench.client, Priority::High, count).await;
        all_end_at(&worker, &high).await;
        let ids: HashSet<_> = high.iter().map(|handle| handle.id().to_string()).collect();
        let mut waiting = 0_usize;
        // Between the receipt and the start of a high task, no other task starts.
        for seen in seen(&worker) {
            match seen {
                Seen::Received(id) => waiting += usize::from(ids.contains(&id)),
                Seen::Started(id) if ids.contains(&id) => waiting -= 1,
                Seen::Started(id) => assert_eq!(waiting, 0, "{id} started before them"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_priority_survives_a_killed_worker() {
    let bench = Bench::new("priorities").await;
    let mut handles = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        handles.extend(send(&bench.client, priority, 300).await);
    }
    let env = bench.env.clone().with("TEST_SLOTS", &SLOTS.to_string());
    let mut first = worker_with(&env);
    for priority in Priority::ALL {
        first.event("task_succeeded", |event| started_as(&first, &event["task_id"], priority)).await;
    }
    let second = worker_with(&env);
    first.kill().await;
    all_end(&handles).await;
    for priority in Priority::ALL {
        let of = |event: &serde_json::Value| event["priority"] == priority.as_str();
        second.event("task_started", of).await;
    }
    // An end is recorded once, over all workers.
    let depths = until("all is committed", async || {
        let depths = bench.client.admin().queues().await.expect("depths");
        depths.iter().all(|depth| depth.lag == 0).then_some(depths)
    })
    .await;
    assert_eq!(depths.iter().map(|depth| depth.priority).collect::<Vec<_>>(), Priority::ALL);
}

fn started_as(worker: &Process, id: &serde_json::Value, priority: Priority) -> bool {
    let started = worker.events("task_started");
    started.iter().any(|event| event["task_id"] == *id && event["priority"] == priority.as_str())
}

/// The names that the tasks wrote when they started, in order.
#[derive(Default)]
struct Starts(Mutex<Vec<&'static str>>);

impl Starts {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[yadtq::task(priority = "low")]
async fn patient(ctx: Context) -> Result<(), MissingState> {
    ctx.state::<Arc<Starts>>()?.note("low");
    tokio::time::sleep(Duration::from_millis(NAP)).await;
    Ok(())
}

#[yadtq::task(priority = "high")]
async fn urgent(ctx: Context) -> Result<(), MissingState> {
    ctx.state::<Arc<Starts>>()?.note("high");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn priorities_hold_with_embedded_servers() {
    for (strict, most) in [(false, SLOTS + TURNS_PER_ROUND), (true, SLOTS)] {
        let client = Client::embedded();
        for answer in client.send_many((0..BACKLOG).map(|_| patient.call().ignore_result())).await {
            answer.expect("accepted");
        }
        let starts = Arc::new(Starts::default());
        let worker = Worker::builder().client(&client).register(patient).register(urgent).state(Arc::clone(&starts));
        let worker = worker.concurrency(SLOTS).strict_priority(strict).drain_timeout(Duration::ZERO);
        let worker = worker.start().await.expect("a worker");
        // The first task creates the topic.
        let high = urgent.call().send(&client).await.expect("accepted");
        high.wait(TEST_TIMEOUT).await.expect("a result");
        for _ in 0..10 {
            let before = starts.all().len();
            urgent.call().send(&client).await.expect("accepted").wait(TEST_TIMEOUT).await.expect("a result");
            let waited = starts.all()[before..].iter().position(|what| *what == "high").expect("it ran");
            hold(if strict { "low tasks, strictly" } else { "low tasks" }, waited, most, STANDSTILL);
        }
        worker.stop().await.expect("it stops");
    }
}
