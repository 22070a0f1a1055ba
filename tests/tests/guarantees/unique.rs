//! Unique calls: one key makes one task, however many callers race for it and whatever dies.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::join_all;
use redis::AsyncCommands as _;
use yadtq::{Call, Client, Error, Status, TaskHandle, TaskId};
use yadtq_tests::{
    process::Process,
    servers::{self, free_port},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

/// A worker that writes down what it runs.
struct Noting {
    worker: Process,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Noting {
    fn start(bench: &Bench) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("runs");
        let worker = worker_with(&bench.env.clone().with("TEST_RECORD", &path.display().to_string()));
        Self { worker, path, _dir: dir }
    }

    /// Lets the worker finish, and returns how often each task ran.
    async fn runs(mut self) -> HashMap<String, usize> {
        self.worker.signal(rustix::process::Signal::TERM);
        assert!(self.worker.end().await, "the worker ends well");
        let mut runs = HashMap::new();
        for id in std::fs::read_to_string(&self.path).expect("a record").lines() {
            *runs.entry(id.to_owned()).or_default() += 1;
        }
        runs
    }
}

fn add(bench: &Bench, key: &str) -> impl Future<Output = Result<TaskHandle<i64>, Error>> {
    tasks::add.call(1, 2).unique(key, HOUR).send(&bench.client)
}

fn redis_key(bench: &Bench, key: &str) -> String {
    format!("{}:unique:{{add:{key}}}", bench.namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_race_for_a_key_get_the_same_task() {
    const KEYS: usize = 50;
    let bench = Bench::new("unique").await;
    let noting = Noting::start(&bench);
    let client = || Client::builder().kafka(servers::kafka()).redis(&bench.redis).namespace(&bench.namespace).build();
    let clients = join_all((0..6).map(|_| client())).await;
    let race = clients.iter().map(async |client| {
        let client = client.as_ref().expect("a client");
        let call = |key| tasks::add.call(1, 2).unique(format!("key {}", key % KEYS), HOUR);
        // Half of the calls are in one batch that has each key twice.
        let batch = client.send_many((0..2 * KEYS).map(call));
        let single = join_all((0..KEYS).map(|key| call(key).send(client)));
        let (batch, single) = tokio::join!(batch, single);
        batch.into_iter().chain(single).enumerate().map(|(i, handle)| (i % KEYS, handle)).collect::<Vec<_>>()
    });
    let mut tasks = BTreeMap::<usize, Vec<TaskHandle<i64>>>::new();
    for (key, handle) in join_all(race).await.into_iter().flatten() {
        tasks.entry(key).or_default().push(handle.expect("acknowledged"));
    }
    assert_eq!(tasks.len(), KEYS);
    for (key, handles) in &tasks {
        assert!(handles.iter().all(|handle| handle.id() == handles[0].id()), "key {key}: {handles:?}");
        assert_eq!(handles.iter().filter(|handle| handle.is_new()).count(), 1, "key {key}: one made it");
        for result in join_all(handles.iter().map(|handle| handle.wait(WAIT))).await {
            assert_eq!(result.expect("all callers get the result"), 3);
        }
    }
    let ended = tasks[&0][0].id().clone();
    let late = add(&bench, "key 0").await.expect("an answer");
    assert!(late.id() == &ended && !late.is_new(), "the end frees no key");
    assert_eq!(late.await.expect("its result is there"), 3);
    let runs = noting.runs().await;
    assert_eq!(runs.len(), KEYS);
    assert!(runs.values().all(|count| *count == 1), "{runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_died_while_sending_leaves_a_usable_key() {
    let bench = Bench::new("ghost").await;
    // The caller reserves the key and sends nothing, because its Kafka cannot be reached.
    let cut_off = Client::builder().kafka(format!("127.0.0.1:{}", free_port())).redis(&bench.redis);
    let cut_off = cut_off.namespace(&bench.namespace).send_timeout(Duration::from_millis(500)).build().await;
    let lost = tasks::add.call(40, 2).unique("k", HOUR).send(&cut_off.expect("a client")).await;
    let Err(Error::Unacknowledged { id, .. }) = lost else { panic!("{lost:?}") };
    let mut redis = bench.redis().await;
    let kept: String = redis.get(redis_key(&bench, "k")).await.expect("the key");
    assert_eq!(kept, format!("pending {id}"));

    let noting = Noting::start(&bench);
    let second = add(&bench, "k").await.expect("acknowledged");
    assert!(second.id() == &id && !second.is_new(), "under the id of the first: {second:?}");
    let kept: String = redis.get(redis_key(&bench, "k")).await.expect("the key");
    assert_eq!(kept, format!("queued {id}"));
    let third = add(&bench, "k").await.expect("an answer");
    assert_eq!(third.id(), &id);
    assert_eq!((second.wait(WAIT).await.expect("it runs"), third.wait(WAIT).await.expect("it runs")), (3, 3));
    assert_eq!(noting.runs().await, HashMap::from([(id.to_string(), 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_records_of_one_key_are_one_task() {
    let bench = Bench::new("twice").await;
    let first = add(&bench, "k").await.expect("acknowledged");
    // As if the first caller had died after Kafka's acknowledgement, before it confirmed the key.
    let mut redis = bench.redis().await;
    let key = redis_key(&bench, "k");
    let pending = format!("pending {}", first.id());
    let () = redis.set(&key, &pending).await.expect("set");
    let second = add(&bench, "k").await.expect("acknowledged");
    assert!(second.id() == first.id() && !second.is_new());
    let () = redis.set(&key, &pending).await.expect("set");

    let noting = Noting::start(&bench);
    assert_eq!((first.wait(WAIT).await.expect("it runs"), second.wait(WAIT).await.expect("it runs")), (3, 3));
    // The caller can no longer confirm the key: the worker that has read the record does it.
    until("the key is confirmed", async || {
        let kept: String = redis.get(&key).await.expect("the key");
        (kept == format!("queued {}", first.id())).then_some(())
    })
    .await;
    // Redis forgets the end of the task before it forgets the key: the task does not run again.
    let () = redis.del(bench.key(first.id())).await.expect("deleted");
    let late = add(&bench, "k").await.expect("an answer");
    assert!(late.id() == first.id() && !late.is_new());
    assert_eq!(noting.runs().await, HashMap::from([(first.id().to_string(), 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_its_task_for_its_ttl_and_to_its_first_caller() {
    let bench = Bench::new("keys").await;
    let client = &bench.client;
    let brief = || tasks::add.call(1, 2).unique("brief", Duration::from_secs(1)).send(client);
    let first = brief().await.expect("acknowledged");
    assert_eq!(brief().await.expect("an answer").id(), first.id());
    // The key is kept for its ttl even if the task is revoked, and then it is free.
    first.revoke().await.expect("an answer");
    let is_free = async || Some(brief().await.is_ok_and(|handle| handle.is_new() && handle.id() != first.id()));
    until("the key is free", async || is_free().await.filter(|is_free| *is_free)).await;

    let of_another_task = tasks::echo.call(1.into()).unique("brief", HOUR).send(client).await.expect("acknowledged");
    assert!(of_another_task.is_new(), "a key belongs to its task");
    let chosen = |id: &str| tasks::add.call(1, 2).id(id.parse().expect("an id")).unique("chosen", HOUR).send(client);
    let (mine, other) = (chosen("mine").await.expect("acknowledged"), chosen("other").await.expect("an answer"));
    assert_eq!((mine.id().as_str(), mine.is_new()), ("mine", true));
    assert_eq!((other.id().as_str(), other.is_new()), ("mine", false), "the first one decides");
    assert!(tasks::add.call(1, 2).send(client).await.expect("acknowledged").is_new(), "without a key, always");
    assert!(!client.handle::<i64>(mine.id().clone()).is_new());

    // The key is made of the arguments, as the task's code says; the order of a map's fields does not matter.
    let map = |order: [(&str, u8); 2]| {
        let fields = order.map(|(name, value)| format!("\"{name}\":{value}")).join(",");
        let value: Box<serde_json::value::RawValue> = serde_json::from_str(&format!("{{{fields}}}")).expect("JSON");
        Call::<i64>::named("once", [value]).unique_args(HOUR).send(client)
    };
    let by_hand = map([("a", 1), ("b", 2)]).await.expect("acknowledged");
    assert_eq!(map([("b", 2), ("a", 1)]).await.expect("an answer").id(), by_hand.id());
    let once = |call: Call<i64>| call.send(client);
    let by_code = once(tasks::once.call(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]))).await;
    assert_eq!(by_code.expect("an answer").id(), by_hand.id());
    assert!(map([("a", 1), ("b", 3)]).await.expect("acknowledged").is_new());
    let again = once(tasks::once.call(BTreeMap::from([("a".to_owned(), 1)])).not_unique()).await.expect("acknowledged");
    assert!(again.is_new());

    for refused in [
        tasks::add.call(1, 2).unique("", HOUR),
        tasks::add.call(1, 2).unique("k".repeat(257), HOUR),
        tasks::add.call(1, 2).unique("k", Duration::ZERO),
        tasks::add.call(1, 2).unique("k", 24 * 366 * HOUR),
    ] {
        let refused = refused.send(client).await;
        assert!(matches!(&refused, Err(Error::Config { what, .. }) if what == "unique"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_unique_is_sent() {
    let bench = Bench::on("uniqueless", &format!("redis://127.0.0.1:{}", free_port())).await;
    let error = add(&bench, "order-17").await.expect_err("nobody can say whether it is the first");
    assert!(matches!(error, Error::Unique { .. }), "{error:?}");
    let text = error.to_string();
    for words in ["unique key `order-17` of task add", "nothing was sent", "redis does not answer", "send it again"] {
        assert!(text.contains(words), "no `{words}`: {text}");
    }
    // The same batch without keys is sent.
    let both = vec![tasks::add.call(1, 2).unique("k", HOUR), tasks::add.call(1, 2)];
    let both = bench.client.send_many(both).await;
    assert!(matches!(both[..], [Err(Error::Unique { .. }), Ok(_)]), "{both:?}");
    let queues = bench.client.admin().queues().await.expect("kafka answers");
    assert_eq!(queues.iter().map(|queue| queue.records).sum::<u64>(), 1, "{queues:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_caller_and_its_successor_make_one_task() {
    let bench = Bench::new("uniquekill").await;
    // A process sends the same keys again and again, and is killed in the middle several times.
    let noting = Noting::start(&bench);
    for _ in 0..5 {
        let args = ["300", "unique"];
        let mut sender = Process::start(std::path::Path::new(env!("CARGO_BIN_EXE_test-client")), &args, &bench.env);
        until("it sends", async || (sender.output().len() > 3).then_some(())).await;
        sender.kill().await;
    }
    let calls = (0..300).map(|i| tasks::add.call(i, 7).unique(format!("key {i}"), HOUR));
    let handles = bench.client.send_many(calls).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    for (i, handle) in (0_i64..).zip(&handles) {
        assert_eq!(handle.wait(WAIT).await.expect("it ends"), i + 7, "key {i}");
        assert_eq!(handle.status().await.expect("a status"), Status::Success);
    }
    let runs = noting.runs().await;
    let ids: std::collections::HashSet<&TaskId> = handles.iter().map(TaskHandle::id).collect();
    assert_eq!((runs.len(), ids.len()), (300, 300));
    assert!(runs.values().all(|count| *count == 1), "{runs:?}");
    println!("{} of 300 keys were begun by processes that were killed", handles.iter().filter(|h| !h.is_new()).count());
}
