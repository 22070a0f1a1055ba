//! Servers that cannot be reached or do not answer: the command reports it within seconds, with a remedy.

use std::{net::TcpListener, time::Duration};

use crate::support::{Place, Ran};

/// Longest time until a person sees an error.
const ERROR_LIMIT: Duration = Duration::from_secs(12);

/// An address without a server: connections are refused.
fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").to_string()
}

#[track_caller]
fn reports(ran: Ran, words: &str) {
    assert!(ran.took < ERROR_LIMIT, "{ran:#?}");
    let ran = ran.exits(5).mentions(words);
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{ran:#?}");
}

#[tokio::test]
async fn kafka_is_down() {
    let address = closed_address();
    let place = Place { kafka: address.clone(), ..Place::new() };
    let remedy = "check that kafka runs there, or name another server with --kafka or YADTQ_KAFKA";
    let (submit, queues, ping) = tokio::join!(
        place.yadtq(["submit", "add", "1", "2", "--id", "maybe"]),
        place.yadtq(["queues", "--json"]),
        place.yadtq(["ping"]),
    );
    assert!(submit.stderr.contains("task maybe may or may not be queued, sending it again"), "{submit:#?}");
    for ran in [submit, queues] {
        reports(ran.mentions(&address).prints(""), remedy);
    }
    assert!(
        ping.stdout.contains(remedy) && ping.stdout.contains("\nredis  ok "),
        "both servers are reported: {ping:#?}"
    );
    reports(ping, "error: cannot use kafka; see the remedy above");
    // A command that needs only Redis works.
    place.yadtq(["workers", "--json"]).await.exits(0).prints("[]\n");
}

#[tokio::test]
async fn redis_is_down() {
    let address = closed_address();
    let place = Place { redis: format!("redis://:secret@{address}"), ..Place::new() };
    let remedy = "check that redis runs there, or name another server with --redis or YADTQ_REDIS";
    let (status, result, workers, wait, ping) = tokio::join!(
        place.yadtq(["status", "some"]),
        place.yadtq(["result", "some", "--wait"]),
        place.yadtq(["workers"]),
        place.yadtq(["submit", "add", "1", "2", "--wait"]),
        place.yadtq(["ping", "--json"]),
    );
    for ran in [status, result, workers, wait] {
        reports(ran.prints(""), remedy);
    }
    let json = ping.json();
    assert_eq!((&json["kafka"]["ok"], &json["redis"]["ok"]), (&true.into(), &false.into()), "{json}");
    assert_eq!(json["redis"]["remedy"], remedy);
    assert!(!ping.stdout.contains("secret"), "{ping:#?}");
    reports(ping, "error: cannot use redis");
    // Kafka has the task, and a worker will create its hash in Redis.
    let sent = place.yadtq(["submit", "add", "1", "2", "--id", "sent"]).await.exits(0).prints("sent\n");
    sent.mentions("warning: redis did not answer within 2s, so the task's status is unknown");
}

#[tokio::test]
async fn both_are_down() {
    let place = Place { kafka: closed_address(), redis: format!("redis://{}", closed_address()), ..Place::new() };
    let (ping, submit) = tokio::join!(place.yadtq(["ping"]), place.yadtq(["submit", "add", "1", "2"]));
    reports(ping, "error: cannot use kafka and redis; see the remedy above");
    reports(submit, "check that kafka runs there");
}

#[tokio::test]
async fn servers_accept_connections_and_do_not_answer() {
    let silent = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [kafka, redis] = silent.each_ref().map(|server| server.local_addr().expect("a bound address"));
    let place = Place { kafka: kafka.to_string(), redis: format!("redis://{redis}"), ..Place::new() };
    let (ping, workers, queues) =
        tokio::join!(place.yadtq(["ping"]), place.yadtq(["workers"]), place.yadtq(["queues"]));
    reports(ping, "error: cannot use kafka and redis");
    reports(workers, "redis does not answer");
    reports(queues, "kafka did not answer");
}

#[tokio::test]
async fn invalid_addresses_are_wrong_usage() {
    let place = Place::new();
    let wrong = [
        ("--redis", "foo", "write redis://"),
        ("--redis", "http://localhost", "its scheme is not redis"),
        ("--kafka", "embedded", "name a real kafka with --kafka or YADTQ_KAFKA"),
        ("--namespace", "Shop.EU", "must match"),
    ];
    for (option, value, words) in wrong {
        let mut command = crate::support::yadtq();
        // The variables are valid, but the option overrides them.
        command.envs([("YADTQ_KAFKA", &place.kafka), ("YADTQ_REDIS", &place.redis)]);
        crate::support::run(command.args(["ping", option, value]), "").await.exits(2).mentions(words).prints("");
    }
}

#[tokio::test]
async fn a_foreign_key_in_place_of_a_task_is_reported() {
    let place = Place::new();
    place.forge("odd", &[("colour", "blue")]).await;
    reports(place.yadtq(["status", "odd"]).await, "is not a task or key of yadtq");
}
