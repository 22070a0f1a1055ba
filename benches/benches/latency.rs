//! The time of one task in an idle system, from the call to the awaited result.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use yadtq::{Client, TaskId, Worker};

#[yadtq::task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

fn round_trip(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let namespace = format!("bench-{}", &TaskId::new().as_str()[24..]);
    let mut group = criterion.benchmark_group("round trip");
    for (name, embedded) in [("kafka and redis", false), ("embedded", true)] {
        let (client, worker) = runtime.block_on(async {
            let client = if embedded {
                Client::embedded()
            } else {
                Client::builder().namespace(&namespace).build().await.expect("the environment is right")
            };
            let worker = Worker::builder().client(&client).register(add).start().await.expect("a worker");
            let first = add.call(1, 2).send(&client).await.expect("kafka acknowledges");
            first.wait(Duration::from_secs(60)).await.expect("the worker runs it");
            (client, worker)
        });
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let handle = add.call(1, 2).send(&client).await.expect("kafka acknowledges");
                assert_eq!(handle.await.expect("it runs"), 3);
            });
        });
        runtime.block_on(worker.stop()).expect("it stops");
    }
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
