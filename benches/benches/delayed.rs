//! Delayed tasks at size: how long a new owner needs before it fires, what it takes in memory, and how soon a backlog that is due
//! at once has run.
//!
//! `cargo bench -p yadtq-benches --bench delayed -- takeover [DELETIONS WAITING BYTES]` (5,000,000, 1,000,000 and 1,024)
//! `cargo bench -p yadtq-benches --bench delayed -- due [TASKS BYTES]` (1,000,000 and 10,240)
//!
//! The worker is a process of its own, whose memory is measured at idle and at its peak. The deletions are those of a compacted
//! log: the records of their tasks are gone. A take-over has ended when a task that was due in each partition has run, which was
//! written behind everything else. The servers must be otherwise idle; the topics are deleted at the end.

use std::{
    env, fs,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use tokio::sync::Notify;
use yadtq::{Client, Context, TaskId, Worker};
use yadtq_benches::memory_kb;

const PARTITIONS: i32 = 12;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

static RUNS: AtomicU64 = AtomicU64::new(0);
static RAN: Notify = Notify::const_new();

#[yadtq::task(result_ttl = "0s")]
async fn sink(_pad: String) {
    RUNS.fetch_add(1, Ordering::Relaxed);
    RAN.notify_one();
}

/// Runs until the others have run, or until its lease is lost.
#[yadtq::task]
async fn hold(ctx: Context, others: u64) -> bool {
    while RUNS.load(Ordering::Relaxed) < others {
        tokio::select! {
            () = ctx.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    true
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |at: usize, default: u64| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    match args.first().map(String::as_str) {
        Some("worker") => worker(&args[1], number(2, 0)).await,
        Some("due") => due(number(1, 1_000_000), number(2, 10_240)).await,
        Some("takeover") => takeover(number(1, 5_000_000), number(2, 1_000_000), number(3, 1_024)).await,
        _ => println!("say what: takeover [DELETIONS WAITING BYTES] | due [TASKS BYTES]"),
    }
}

async fn client(namespace: &str) -> Client {
    Client::builder().namespace(namespace).partitions(PARTITIONS).build().await.expect("the environment is right")
}

/// A worker that has the tasks of a namespace run, and prints how long that took and what it took in memory.
async fn worker(namespace: &str, expected: u64) {
    let idle_client = client(&format!("{namespace}-idle")).await;
    let idle = Worker::builder().client(&idle_client).register(sink).start().await.expect("a worker");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let at_idle = memory_kb("VmRSS:");
    idle.stop().await.expect("it stops");
    fs::write("/proc/self/clear_refs", "5").expect("the peak is reset");

    let client = client(namespace).await;
    let begun = Instant::now();
    let worker = Worker::builder().client(&client).register(sink).register(hold).start().await.expect("a worker");
    let mut first = None;
    while RUNS.load(Ordering::Relaxed) < expected {
        RAN.notified().await;
        first.get_or_insert_with(|| begun.elapsed());
    }
    let (took, peak) = (begun.elapsed(), memory_kb("VmHWM:"));
    println!(
        "the first of {expected} due tasks ran after {:.1?}, the last after {took:.1?}; {} MB at idle, {} MB more at the peak",
        first.unwrap_or(took),
        at_idle / 1_024,
        peak.saturating_sub(at_idle) / 1_024
    );
    worker.stop().await.expect("it stops");
}

async fn run_worker(namespace: &str, expected: u64) {
    let mut command = Command::new(env::current_exe().expect("its path"));
    command.args(["worker", namespace, &expected.to_string()]);
    let status = tokio::task::spawn_blocking(move || command.status()).await.expect("no panic");
    assert!(status.expect("it starts").success());
}

async fn takeover(deletions: u64, waiting: u64, bytes: u64) {
    let (namespace, client) = begin().await;
    let topic = format!("{namespace}.delayed");
    let fill = move || {
        let producer = producer();
        for _ in 0..deletions {
            let key = format!("{}/1", TaskId::new());
            send(&producer, BaseRecord::<str, [u8]>::to(&topic).key(&key));
        }
        let tomorrow = now_ms() + DAY_MS;
        (0..waiting).for_each(|n| send_task(&producer, &topic, tomorrow + n, bytes, None));
        producer.flush(Duration::from_secs(120)).expect("kafka has them");
        (0..PARTITIONS).for_each(|partition| send_task(&producer, &topic, 1, bytes, Some(partition)));
        producer.flush(Duration::from_secs(120)).expect("kafka has them");
    };
    tokio::task::spawn_blocking(fill).await.expect("filled");
    println!(
        "take-over with {deletions} deletions and {waiting} waiting tasks of {bytes} bytes in {PARTITIONS} partitions"
    );
    run_worker(&namespace, u64::try_from(PARTITIONS).expect("a few")).await;
    end(&namespace, client).await;
}

async fn due(tasks: u64, bytes: u64) {
    let (namespace, client) = begin().await;
    let topic = format!("{namespace}.delayed");
    let fill = move || {
        let producer = producer();
        (0..tasks).for_each(|_| send_task(&producer, &topic, 1, bytes, None));
        producer.flush(Duration::from_secs(120)).expect("kafka has them");
    };
    tokio::task::spawn_blocking(fill).await.expect("filled");
    let held = hold.call(tasks).max_retries(0).send(&client).await.expect("acknowledged");
    println!("{tasks} tasks of {bytes} bytes that are due at once, in {PARTITIONS} partitions");
    run_worker(&namespace, tasks).await;
    let id = held.id().clone();
    let kept = held.wait(Duration::from_secs(30)).await.expect("it has run");
    let info = client.admin().task(&id).await.expect("redis answers").expect("it is known");
    println!("a task that ran meanwhile kept its lease: {kept}; deliveries that were lost: {}", info.deliveries);
    end(&namespace, client).await;
}

/// A namespace whose topic of delayed tasks exists.
async fn begin() -> (String, Client) {
    let namespace = format!("bench-{}", &TaskId::new().as_str()[24..]);
    let client = client(&namespace).await;
    let far = sink.call(String::new()).countdown(Duration::from_secs(7 * 24 * 3_600)).send(&client).await;
    far.expect("acknowledged");
    (namespace, client)
}

fn kafka() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", env::var("YADTQ_KAFKA").unwrap_or_else(|_| "localhost:9092".to_owned()));
    config
}

fn producer() -> ThreadedProducer<DefaultProducerContext> {
    let mut config = kafka();
    config.set("partitioner", "murmur2_random").set("acks", "all").set("linger.ms", "20");
    config.set("queue.buffering.max.messages", "200000").create().expect("a producer")
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, record: BaseRecord<'_, str, [u8]>) {
    let mut next = record;
    while let Err((_, back)) = producer.send(next) {
        next = back;
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send_task(
    producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, eta: u64, bytes: u64, partition: Option<i32>,
) {
    let (id, pad) = (TaskId::new(), "x".repeat(usize::try_from(bytes.saturating_sub(130)).expect("it fits")));
    let record = format!(r#"{{"task-id":"{id}","task":"sink","args":["{pad}"],"eta":{eta},"queue":"default"}}"#);
    let key = format!("{id}/1");
    let mut next = BaseRecord::to(topic).key(&*key).payload(record.as_bytes());
    next.partition = partition;
    send(producer, next);
}

#[allow(clippy::disallowed_methods, reason = "the due times of the tasks")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    u64::try_from(since.as_millis()).expect("it fits")
}

/// Deletes the topics.
async fn end(namespace: &str, client: Client) {
    drop(client);
    let consumer: BaseConsumer = kafka().create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).expect("kafka answers");
    let topics: Vec<_> = metadata.topics().iter().map(|topic| topic.name()).collect();
    let own: Vec<_> = topics.into_iter().filter(|name| name.starts_with(namespace)).collect();
    let admin: AdminClient<DefaultClientContext> = kafka().create().expect("an admin client");
    let _ = admin.delete_topics(&own, &AdminOptions::new()).await.expect("kafka answers");
}
