//! A build without the features `kafka` and `redis` says what it lacks.

use yadtq::{Client, Error, Worker};

#[yadtq::task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[tokio::main]
async fn main() {
    let refused = Client::builder().kafka("kafka-1:9092").build().await;
    let Err(error @ Error::Config { .. }) = refused else { panic!("{refused:?}") };
    let text = error.to_string();
    assert!(text.contains("kafka-1:9092") && text.contains("features `kafka` and `redis`"), "{text}");

    Client::embedded().install().unwrap();
    let worker = Worker::builder().register(add).start().await.unwrap();
    assert_eq!(add.delay(1, 2).await.unwrap().await.unwrap(), 3);
    worker.stop().await.unwrap();
}
