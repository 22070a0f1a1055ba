//! A Kafka with users and ACLs: the rights in the guide are enough, and a missing one is named.

use std::time::Duration;

use yadtq::{Client, Error};
use yadtq_tests::{
    namespace,
    process::Env,
    servers::{self, Kafka},
    tasks, until,
};

use super::worker_with;

const WAIT: Duration = Duration::from_secs(60);
const GUIDE: &str = include_str!("../../../yadtq/src/guide/security.md");

/// The settings of a user.
fn settings(user: &str) -> [(&'static str, String); 4] {
    [
        ("security.protocol", "SASL_PLAINTEXT".to_owned()),
        ("sasl.mechanism", "PLAIN".to_owned()),
        ("sasl.username", user.to_owned()),
        ("sasl.password", "password".to_owned()),
    ]
}

async fn client(kafka: &str, namespace: &str, user: &str) -> Client {
    let builder = Client::builder().kafka(kafka).redis(servers::redis()).namespace(namespace);
    let builder = settings(user).into_iter().fold(builder, |builder, (key, value)| builder.kafka_conf(key, value));
    builder.build().await.expect("a client")
}

/// The commands in the guide, as arguments, for this namespace.
fn commands(namespace: &str) -> Vec<Vec<String>> {
    let commands = GUIDE.lines().filter_map(|line| line.strip_prefix("kafka-acls.sh "));
    let name = |arg: &str| match arg {
        "yadtq" => namespace.to_owned(),
        "yadtq." => format!("{namespace}."),
        arg => arg.to_owned(),
    };
    commands.map(|command| command.split_whitespace().map(name).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_users_need_the_rights_in_the_guide_and_no_more() {
    let kafka = Kafka::start_with_users(&["worker", "app"]);
    let (address, namespace) = (kafka.second_address(), namespace("secured"));
    let app = client(&address, &namespace, "app").await;
    let refused = until("kafka refuses", async || match tasks::add.call(1, 2).send(&app).await {
        Err(Error::Unacknowledged { .. }) => None,
        sent => Some(sent.expect_err("this user may do nothing")),
    });
    let refused = refused.await.to_string();
    assert!(refused.contains("uthoriz"), "{refused}");
    let env = |user: &str| {
        let conf: Vec<_> = settings(user).iter().map(|(key, value)| format!("{key}={value}")).collect();
        Env::new(&address, &servers::redis(), &namespace).with("YADTQ_KAFKA_CONF", &conf.join(","))
    };
    let worker = worker_with(&env("worker"));
    worker.event("broker_refuses", |event| event["error"].as_str().is_some_and(|e| e.contains("uthoriz"))).await;
    let commands = commands(&namespace);
    assert_eq!(commands.len(), 3);
    for command in commands {
        kafka.allow(&command.iter().map(String::as_str).collect::<Vec<_>>());
    }

    worker.event("partitions_assigned", |_| true).await;
    let before = worker.output().len();
    let sum = tasks::add.call(1, 2).send(&app).await.expect("acknowledged");
    assert_eq!(sum.wait(WAIT).await.expect("a result"), 3);
    let later = tasks::add.call(1, 2).countdown(Duration::from_secs(1)).send(&app).await.expect("acknowledged");
    assert_eq!(later.wait(WAIT).await.expect("a result"), 3);
    let flaky = tasks::flaky.call(1).send(&app).await.expect("acknowledged");
    flaky.wait(WAIT).await.expect("it is retried");
    let failed = tasks::fail.call("no".to_owned()).max_retries(0).send(&app).await.expect("acknowledged");
    assert!(failed.wait(WAIT).await.is_err());
    let revoked = tasks::nap.call(600_000).send(&app).await.expect("acknowledged");
    revoked.revoke().await.expect("a client may revoke");
    assert!(matches!(revoked.wait(WAIT).await, Err(Error::Revoked { .. })));

    let operator = client(&address, &namespace, "worker").await;
    until("there is a dead letter", async || {
        (operator.admin().dead_letters().count().await.expect("it may read") == 1).then_some(())
    })
    .await;
    let denied = app.admin().dead_letters().count().await.expect_err("it may only send").to_string();
    assert!(denied.contains("uthoriz"), "{denied}");
    let warnings = operator.admin().ping().await.kafka.expect("an answer").warnings;
    assert!(warnings.iter().all(|warning| !warning.contains("uthoriz")), "{warnings:?}");
    let complaints: Vec<_> = worker
        .output()
        .into_iter()
        .skip(before)
        // The producer may notice only now what it was refused before.
        .filter(|line| line.contains("uthoriz") && !line.contains("producer_rebuilt"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
