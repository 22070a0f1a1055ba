//! What a worker costs that has nothing to do.

use std::{fs, time::Duration};

use yadtq_tests::{process::Process, servers::Redis, until};

use super::{Fleet, all_succeed, start};

const MEASURED: Duration = Duration::from_secs(20);
/// How often per second a worker looks its topics up in Kafka.
const LOOK_UPS: f64 = 1.0 / 1.5;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_makes_few_calls() {
    let server = Redis::start(&[]);
    let fleet = Fleet::on("idle", &server.url()).await;
    let worker = fleet.worker().await;
    all_succeed(fleet.naps(10, 1).await).await;
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut redis = client.get_multiplexed_async_connection().await.expect("redis answers");
    let mut calls = async || -> u64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.expect("an answer");
        // What a script calls counts as well; only what comes over the network is of interest here.
        let of = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let is_sent = ["evalsha", "eval", "ping", "hgetall"].contains(&name);
            is_sent.then(|| rest.split(',').next()?.parse::<u64>().ok()).flatten()
        };
        stats.lines().filter_map(of).sum()
    };
    let (calls_before, cpu_before) = (calls().await, cpu_seconds(&worker));
    tokio::time::sleep(MEASURED).await;
    let per_second = (calls().await - calls_before) as f64 / MEASURED.as_secs_f64();
    let share = (cpu_seconds(&worker) - cpu_before) / MEASURED.as_secs_f64();
    println!("an idle worker: {per_second:.2} calls/s to Redis, {:.2} % of a core", share * 100.0);
    assert!(per_second + LOOK_UPS <= 5.0, "{per_second} calls/s to Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_twenty_queues_has_few_threads_of_librdkafka() {
    let fleet = Fleet::new("threads").await;
    let queues: Vec<String> = (0..20).map(|n| format!("q{n}")).collect();
    let worker = start(&fleet.env.clone().with("TEST_QUEUES", &queues.join(",")));
    until("it reads all queues", async || {
        let events = worker.events("partitions_assigned");
        let read: std::collections::HashSet<_> = events.iter().map(|event| event["queue"].to_string()).collect();
        (read.len() == 20).then_some(())
    })
    .await;
    let names = fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("a process").filter_map(|entry| {
        let name = fs::read_to_string(entry.ok()?.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    });
    let names: Vec<_> = names.filter(|name| name.starts_with("rdk:")).collect();
    println!("20 queues: {} threads of librdkafka: {names:?}", names.len());
    assert!(names.len() <= 12, "{names:?}");
}

/// CPU time that a process has used.
fn cpu_seconds(process: &Process) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("a process");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number");
    ticks / 100.0
}
