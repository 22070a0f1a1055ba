//! Passwords reach the servers, and nothing else.

use std::time::Duration;

use yadtq::Client;
use yadtq_tests::{
    namespace,
    process::Env,
    servers::{self, Redis},
    tasks,
};

use super::worker_with;

/// Of Redis, and of Kafka, where it is not needed and has a comma.
const SECRETS: [&str; 2] = ["hunter2", "correct,horse"];

fn assert_hidden(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows `{secret}`: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_line_error_or_debug_output_shows_a_password() {
    let mut server = Redis::start(&["--requirepass", SECRETS[0], "--appendonly", "yes"]);
    let url = |password: &str| server.url().replace("redis://", &format!("redis://:{password}@"));
    let (redis, wrong) = (url(SECRETS[0]), url(&format!("{}x", SECRETS[0])));
    let namespace = namespace("secrets");
    let builder = |redis: &str, key: &str| {
        let client = Client::builder().kafka(servers::kafka()).redis(redis).namespace(&namespace);
        client.kafka_conf(key, SECRETS[1])
    };
    assert_hidden("a builder", &format!("{:?}", builder(&redis, "sasl.password")));
    let client = builder(&redis, "sasl.password").build().await.expect("a client");
    let (admin, letters) = (client.admin(), client.admin().dead_letters());
    assert_hidden("a client", &format!("{client:?} {admin:?} {letters:?}"));
    let typo = builder(&redis, "sasl.pasword").build().await.expect_err("there is no such setting");
    assert!(typo.to_string().contains("sasl.pasword"), "{typo}");
    assert_hidden("an error", &format!("{typo} {typo:?}"));
    let stranger = builder(&wrong, "sasl.password").build().await.expect("a client");
    let refused = stranger.admin().ping().await.redis.expect_err("it has another password");
    assert_hidden("an error", &format!("{refused} {refused:?}"));

    let env = Env::new(&servers::kafka(), &redis, &namespace).with("RUST_LOG", "debug");
    let worker =
        worker_with(&env.with("YADTQ_KAFKA_CONF", &format!("sasl.password={}", SECRETS[1].replace(',', "\\,"))));
    worker.event("worker_connected", |_| true).await;
    let sum = tasks::add.call(1, 2).send(&client).await.expect("acknowledged");
    assert_eq!(sum.wait(Duration::from_secs(60)).await.expect("it runs"), 3);
    server.stop();
    worker.event("backend_disconnected", |_| true).await;
    server.start_again();
    let sum = tasks::add.call(1, 2).send(&client).await.expect("acknowledged");
    assert_eq!(sum.wait(Duration::from_secs(60)).await.expect("it runs"), 3);
    for line in worker.output() {
        assert_hidden("the log", &line);
    }
}
