//! One worker runs 200,000 waiting no-op tasks. The same run measures the raw limit: the same records through rdkafka and
//! the same two scripts through fred, without YADTQ.
//!
//! `cargo bench -p yadtq-benches --bench drain [-- TASKS [ROUNDS]]`

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use fred::{
    clients::Client as Redis,
    interfaces::{ClientLike as _, LuaInterface as _},
    types::{Value, config::Config},
};
use futures_util::{StreamExt as _, stream};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use tokio::sync::Notify;
use yadtq::{Client, TaskId, Worker};

const CLAIM: &str = concat!(
    include_str!("../../yadtq/src/store/redis/lua/task.lua"),
    include_str!("../../yadtq/src/store/redis/lua/notify.lua"),
    include_str!("../../yadtq/src/store/redis/lua/claim.lua"),
);
const FINISH: &str = concat!(
    include_str!("../../yadtq/src/store/redis/lua/task.lua"),
    include_str!("../../yadtq/src/store/redis/lua/notify.lua"),
    include_str!("../../yadtq/src/store/redis/lua/lease.lua"),
    include_str!("../../yadtq/src/store/redis/lua/finish.lua"),
);
/// Tasks per script call; YADTQ uses the same number.
const BATCH: usize = 256;

static RUNS: AtomicU64 = AtomicU64::new(0);
static TARGET: AtomicU64 = AtomicU64::new(u64::MAX);
static DONE: Notify = Notify::const_new();

#[yadtq::task]
async fn noop() {
    if RUNS.fetch_add(1, Ordering::Relaxed) + 1 == TARGET.load(Ordering::Relaxed) {
        DONE.notify_one();
    }
}

#[tokio::main]
async fn main() {
    let mut numbers = env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (tasks, rounds) = (numbers.next().unwrap_or(200_000), numbers.next().unwrap_or(3));
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let raw = raw(tasks).await;
        let ours = ours(tasks).await;
        println!("round {round}: raw {raw:>9.0} tasks/s   yadtq {ours:>9.0} tasks/s   ratio {:.2}", ours / raw);
        ratios.push(ours / raw);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2} of {tasks} tasks, {rounds} rounds", ratios[ratios.len() / 2]);
}

fn var(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn kafka() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", var("YADTQ_KAFKA", "localhost:9092"));
    config
}

/// Creates a namespace whose queue has this many tasks. Any Kafka client could send them so.
async fn filled(tasks: usize) -> (String, Client) {
    let namespace = format!("bench-{}", &TaskId::new().as_str()[24..]);
    let client = Client::builder().namespace(&namespace).build().await.expect("the environment is right");
    // The first task creates the topic.
    noop.call().send(&client).await.expect("kafka acknowledges");
    let topic = format!("{namespace}.default");
    let producer: FutureProducer =
        kafka().set("linger.ms", "5").set("partitioner", "murmur2_random").create().expect("a producer");
    let sends = stream::iter(1..tasks).map(|_| async {
        let id = TaskId::new().to_string();
        let value = format!(r#"{{"task-id":"{id}","task":"noop","args":[]}}"#);
        let record = FutureRecord::to(&topic).key(&id).payload(&value);
        producer.send(record, Duration::from_secs(60)).await.expect("acknowledged");
    });
    sends.buffer_unordered(10_000).collect::<Vec<()>>().await;
    (namespace, client)
}

async fn ours(tasks: usize) -> f64 {
    let (_, client) = filled(tasks).await;
    RUNS.store(0, Ordering::Relaxed);
    TARGET.store(tasks as u64, Ordering::Relaxed);
    let worker = Worker::builder().client(&client).register(noop).start().await.expect("a worker");
    while RUNS.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let begun = Instant::now();
    DONE.notified().await;
    let rate = tasks as f64 / begun.elapsed().as_secs_f64();
    worker.stop().await.expect("it stops");
    rate
}

async fn raw(tasks: usize) -> f64 {
    let (namespace, _client) = filled(tasks).await;
    let topic = format!("{namespace}.default");
    let consumer: StreamConsumer = kafka()
        .set("group.id", format!("{topic}.raw"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[&topic]).expect("subscribed");
    let redis =
        Redis::new(Config::from_url(&var("YADTQ_REDIS", "redis://localhost:6379")).expect("a URL"), None, None, None);
    redis.init().await.expect("redis answers");
    let claim: String = redis.script_load(CLAIM).await.expect("loaded");
    let finish: String = redis.script_load(FINISH).await.expect("loaded");

    let (mut seen, mut begun, mut nonce) = (0, None, 0_u64);
    let mut under_way = stream::FuturesUnordered::new();
    while seen < tasks || !under_way.is_empty() {
        if seen < tasks && under_way.len() < 4 {
            let mut ids = Vec::with_capacity(BATCH);
            let mut offsets = TopicPartitionList::new();
            while ids.len() < BATCH && seen < tasks {
                let message = match consumer.recv().await {
                    Ok(message) => message,
                    Err(error) => panic!("kafka: {error}"),
                };
                begun.get_or_insert_with(Instant::now);
                let text = std::str::from_utf8(message.payload().unwrap_or_default()).expect("UTF-8");
                ids.push(text.split('"').nth(3).expect("an id").to_owned());
                let next = Offset::Offset(message.offset() + 1);
                if offsets.find_partition(&topic, message.partition()).is_none() {
                    offsets.add_partition(&topic, message.partition());
                }
                offsets.set_partition_offset(&topic, message.partition(), next).expect("an offset");
                seen += 1;
            }
            consumer.commit(&offsets, CommitMode::Async).expect("committing");
            nonce += BATCH as u64;
            under_way.push(batch(&redis, &claim, &finish, &namespace, ids, nonce));
        } else {
            under_way.next().await;
        }
    }
    tasks as f64 / begun.expect("there were tasks").elapsed().as_secs_f64()
}

/// Claims and finishes a batch.
async fn batch(redis: &Redis, claim: &str, finish: &str, namespace: &str, ids: Vec<String>, nonce: u64) {
    let keys: Vec<String> = ids.iter().map(|id| format!("{namespace}:task:{{{id}}}")).collect();
    let mut args: Vec<String> = ["raw", "6000", "1", "1", "5", "604800000", "86400000"].map(str::to_owned).to_vec();
    let (channels, id_at) = (format!("{namespace}:reply:"), (namespace.len() + 8).to_string());
    args.extend([channels.clone(), id_at.clone()]);
    for i in 0..ids.len() as u64 {
        args.extend(["1".to_owned(), "1".to_owned(), (nonce + i).to_string(), "noop".to_owned(), "default".to_owned()]);
    }
    let granted: Vec<Value> = redis.evalsha(claim, keys.clone(), args).await.expect("claimed");
    let mut args = vec![channels, id_at, "65536".to_owned()];
    args.extend(["86400000", "604800000", "1048576"].map(str::to_owned));
    for grant in granted.chunks(3) {
        assert_eq!(grant[0].as_i64(), Some(0), "granted");
        let token = grant[1].as_i64().expect("a token").to_string();
        args.extend([token, String::new(), "success".to_owned(), "null".to_owned()]);
        args.extend(["86400000".to_owned(), String::new()]);
    }
    let recorded: Vec<i64> = redis.evalsha(finish, keys, args).await.expect("finished");
    assert!(recorded.iter().all(|&answer| answer == 1), "recorded");
}
