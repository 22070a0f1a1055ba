//! A task runs for long at the head of its partition, and others end behind it. Then its worker is killed, and the next one
//! too, and Redis loses all data.

use std::{collections::HashMap, path::Path, time::Duration};

use yadtq::Status;
use yadtq_tests::{ms, now_ms, process::Process, servers, servers::Redis, tasks, until};

use super::{Bench, worker_with};

/// Many times the window of a partition, and then half of one, which ends behind the last copy of the long task's record.
const SHORT: [usize; 2] = [95_000, 5_000];
const ALL_SHORT: usize = SHORT[0] + SHORT[1];
/// What has ended is committed within this time.
const COMMITTED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_behind_a_long_task_does_not_run_again_whatever_is_killed_or_lost() {
    let server = Redis::start(&[]);
    let bench = Bench::on("head", &server.url()).await;
    make_topic(&bench);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("runs");
    let env = bench.env.clone().with("TEST_RECORD", &path.display().to_string()).with("TEST_DRAIN_MS", "0");
    let env = env.with("RUST_LOG", "warn,yadtq::worker::intake=info");

    let head = tasks::nap.call(600_000).send(&bench.client).await.expect("acknowledged");
    let mut worker = worker_with(&env);
    until("the long task runs", async || (head.status().await.ok()? == Status::Running).then_some(())).await;
    let began_ms = now_ms();
    let mut sent = 0;
    for count in SHORT {
        for handle in bench.client.send_many((0..count).map(|_| tasks::noted.call())).await {
            handle.expect("acknowledged");
        }
        sent += count;
        until("the short ones run", async || (runs(&path).len() >= sent).then_some(())).await;
    }
    let (mut most_lag, mut oldest_ms) = (0, None);
    let counted = async || {
        let queues = bench.client.admin().queues().await.ok()?;
        most_lag = queues[0].lag.max(most_lag);
        oldest_ms = queues[0].oldest_at.map(ms);
        (queues.len() == 1 && (queues[0].waiting(), queues[0].running) == (0, Some(1))).then_some(())
    };
    until("only the long task is left", counted).await;
    assert!(most_lag > 1, "others ended behind it");
    // Its record was published again at the end of the topic, when others waited for it.
    assert!(oldest_ms.is_some_and(|ms| (began_ms..=now_ms()).contains(&ms)), "{oldest_ms:?}");
    let carried = worker.events("task_carried");
    assert!(!carried.is_empty(), "its record keeps no window full");
    assert!(carried.iter().all(|event| event["task_id"] == head.id().to_string()), "{carried:?}");

    for is_emptied in [false, true] {
        tokio::time::sleep(COMMITTED_WITHIN).await;
        worker.kill().await;
        if is_emptied {
            let () = redis::cmd("FLUSHALL").query_async(&mut bench.redis().await).await.expect("emptied");
        }
        worker = worker_with(&env);
        let last = tasks::noted.call().send(&bench.client).await.expect("acknowledged");
        last.wait(yadtq_tests::TEST_TIMEOUT).await.expect("it runs behind everything that is read again");
        let runs_here = async || {
            let info = bench.client.admin().task(head.id()).await.ok()??;
            (info.status == Status::Running && is_worker(&worker, info.worker.as_deref()?)).then_some(())
        };
        until("the long task runs again", runs_here).await;
    }
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.end().await, "it ends well");
    let mut times = HashMap::<String, usize>::new();
    runs(&path).into_iter().for_each(|id| *times.entry(id).or_default() += 1);
    let again = times.values().filter(|&&times| times > 1).count();
    assert_eq!((times.len(), again), (ALL_SHORT + 2, 0), "each short one ran, and none ran again");
}

/// The queue's topic, with one partition.
fn make_topic(bench: &Bench) {
    let topic = format!("{}.default", bench.namespace);
    let created = servers::kafka_tool("org.apache.kafka.tools.TopicCommand")
        .args(["--bootstrap-server", &servers::kafka(), "--create", "--topic", &topic])
        .args(["--partitions", "1", "--config", "retention.ms=-1"])
        .output()
        .expect("java runs");
    assert!(created.status.success(), "{created:?}");
}

fn is_worker(process: &Process, id: &str) -> bool {
    process.events("partitions_assigned").iter().any(|event| event["worker"] == id)
}

/// The ids of the tasks that ran, in order.
fn runs(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
