//! A build without the features `kafka` and `redis` says what it lacks, and so does a program that names no servers.

use yadtq::{Client, Error, Worker};

#[yadtq::task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

fn main() {
    // SAFETY: this is the only thread.
    unsafe { std::env::remove_var("YADTQ_KAFKA") };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let refused = Client::builder().kafka("kafka-1:9092").build().await;
        let Err(error @ Error::Config { .. }) = refused else { panic!("{refused:?}") };
        let text = error.to_string();
        assert!(text.contains("kafka-1:9092") && text.contains("features `kafka` and `redis`"), "{text}");

        let refused = add.delay(1, 2).await;
        let Err(error @ Error::NoClient) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("client.install()"), "{error}");

        let client = Client::embedded();
        let worker = Worker::builder().client(&client).register(add).start().await.unwrap();
        assert_eq!(client.scope(add.delay(1, 2)).await.unwrap().await.unwrap(), 3);
        assert!(matches!(add.delay(1, 2).await, Err(Error::NoClient)), "the scope has ended");
        worker.stop().await.unwrap();
    });
}
