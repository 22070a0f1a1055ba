//! `yadtq submit`.

use serde_json::json;

use crate::support::Place;

#[tokio::test]
async fn arguments_come_as_json_or_else_as_strings() {
    let place = Place::new();
    let worker = place.worker().await;
    let wait = ["--wait", "--timeout", "30s"];
    for (args, result) in [
        (["submit", "add", "1", "2"], "3\n"),
        (["submit", "add", "-1", "2"], "1\n"),
        (["submit", "add", "--args-json", "[40, 2]"], "42\n"),
        (["submit", "add", "--args-json", r#"{"b": 1, "a": 2}"#], "3\n"),
        (["submit", "greet", "Ada", "--queue=mail"], "\"Hello, Ada\"\n"),
        (["submit", "greet", r#""7""#, "--queue=mail"], "\"Hello, 7\"\n"),
    ] {
        let [a, b, c, d] = args;
        let [e, f, g] = wait;
        place.yadtq([a, b, c, d, e, f, g]).await.exits(0).mentions("note: sent as ").prints(result);
    }
    let args = ["submit", "add", "--args-json", "-", "--wait"];
    place.with_stdin(args, "[20,\n 3]\n").await.exits(0).prints("23\n");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn it_prints_only_the_id() {
    let place = Place::new();
    let ran = place.yadtq(["submit", "add", "1", "2"]).await.exits(0).quietly();
    assert_eq!(ran.line().len(), 36, "a UUID: {ran:?}");
    let ran = place.yadtq(["submit", "greet", "Ada", "--queue", "mail", "--id", "mine", "--json"]).await;
    assert_eq!(ran.exits(0).quietly().json(), json!({"id": "mine", "task": "greet", "queue": "mail"}));
    // Its status is known at once, without any worker.
    place.until("mine", "queued").await;
}

#[tokio::test]
async fn a_second_submit_of_an_id_is_noted_and_harmless() {
    let place = Place::new();
    let worker = place.worker().await;
    place.yadtq(["submit", "add", "1", "2", "--id", "twice", "--wait"]).await.exits(0).prints("3\n");
    let again = place.yadtq(["submit", "add", "5", "5", "--id", "twice"]).await.exits(0).prints("twice\n");
    again.says("note: task twice already exists, its status is success; it is sent again, and still ends once");
    place.yadtq(["result", "twice"]).await.exits(0).prints("3\n");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_unique_key_makes_one_task() {
    let place = Place::new();
    let submit = ["submit", "add", "1", "2", "--unique", "k", "--unique-ttl", "1h"];
    let first = place.yadtq(submit).await.exits(0).quietly().line().to_owned();
    let note = format!("note: task {first} already has this key; no second task was sent");
    place.yadtq(submit).await.exits(0).says(&note).prints(&format!("{first}\n"));
    let [a, b, c, d, e, f, g, h] = submit;
    let sent = place.yadtq([a, b, c, d, e, f, g, h, "--json"]).await.exits(0).says(&note).json();
    assert_eq!(sent, json!({"id": first, "task": "add", "queue": "default", "new": false}));
    let worker = place.worker().await;
    place.yadtq([a, b, "5", "6", e, f, g, h, "--wait"]).await.exits(0).says(&note).prints("3\n");
    let other = place.yadtq([a, b, c, d, e, "other", g, h, "--json"]).await.exits(0).quietly().json();
    assert_eq!(other["new"], true);
    worker.stop().await.unwrap();

    let mut without_redis = crate::support::yadtq();
    without_redis.args(["--kafka", &place.kafka, "--redis", "redis://127.0.0.1:1", "--namespace", &place.namespace]);
    let ran = crate::support::run(without_redis.args(submit), "").await.exits(5);
    ran.mentions("nothing was sent").prints("");
}

#[tokio::test]
async fn a_run_has_a_timeout() {
    let place = Place::new();
    let worker = place.worker().await;
    let ran = place
        .yadtq(["submit", "climb", "--run-timeout", "50ms", "--max-retries", "0", "--wait", "--timeout", "30s"])
        .await;
    ran.exits(1).mentions("timeout");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn every_priority_runs() {
    let place = Place::new();
    let worker = place.worker().await;
    for priority in ["high", "normal", "low"] {
        let args = ["submit", "add", "1", "2", "--priority", priority, "--wait", "--timeout", "30s"];
        place.yadtq(args).await.exits(0).prints("3\n");
    }
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_with_an_ordering_key_waits_for_the_one_before() {
    let place = Place::new();
    let first = place.yadtq(["submit", "hold", "--ordering-key", "customer-17", "--id", "first"]).await;
    first.exits(0).prints("first\n");
    place.yadtq(["submit", "add", "1", "2", "--ordering-key", "customer-17", "--id", "next"]).await.exits(0);
    let worker = place.worker().await;
    place.yadtq(["submit", "add", "3", "4", "--wait", "--timeout", "30s"]).await.exits(0).prints("7\n");
    let status = place.yadtq(["status", "next", "--json"]).await.exits(0).json();
    assert_eq!(status["status"], "queued", "{status}");
    place.yadtq(["revoke", "first"]).await.exits(0);
    place.yadtq(["result", "next", "--wait", "--timeout", "30s"]).await.exits(0).prints("3\n");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn invalid_tasks_are_refused_with_a_remedy() {
    let place = Place::new();
    let refused = |ran: crate::support::Ran, words: &str| ran.exits(2).mentions("error: ").mentions(words).prints("");
    refused(place.yadtq(["submit", "add", "--args-json", "[1,"]).await, "--args-json is not JSON: EOF");
    refused(place.yadtq(["submit", "add", "--args-json", "3"]).await, "must be an array");
    refused(place.yadtq(["submit", "add", "1", "--args-json", "[1]"]).await, "cannot be used with");
    refused(place.with_stdin(["submit", "add", "--args-json", "-"], "{").await, "stdin is not JSON: EOF");
    refused(place.yadtq(["submit", ""]).await, "NAME");
    refused(place.yadtq(["submit", "add", "--queue", "dead"]).await, "reserved; choose another");
    refused(place.yadtq(["submit", "add", "--id", &"x".repeat(129)]).await, "1 to 128 bytes");
    refused(place.yadtq(["submit", "add", "--timeout", "3s"]).await, "--wait");
    refused(place.yadtq(["submit", "add", "--run-timeout", "0s"]).await, "must be at least 1 ms");
    refused(place.yadtq(["submit", "add", "--unique", "k"]).await, "--unique-ttl");
    refused(place.yadtq(["submit", "add", "--unique-ttl", "1h"]).await, "--unique");
    refused(place.yadtq(["submit", "add", "--unique", "k", "--unique-ttl", "0s"]).await, "1 s to 365 days");
    refused(place.yadtq(["submit", "add", "--unique", "", "--unique-ttl", "1h"]).await, "1 to 256 bytes");
    refused(place.yadtq(["submit", "add", "--ordering-key", ""]).await, "1 to 256 bytes");
    refused(
        place.yadtq(["submit", "add", "--ordering-key", "k", "--priority", "low"]).await,
        "combined with `priority` low",
    );
    refused(place.yadtq(["submit", "add", "--priority", "urgent"]).await, "possible values: high, normal, low");
    let large = format!("[\"{}\"]", "x".repeat(1_000_000));
    refused(place.with_stdin(["submit", "add", "--args-json", "-"], &large).await, "send a reference to the data");
}

#[tokio::test]
async fn invalid_json_is_sent_as_a_string_with_a_warning() {
    let place = Place::new();
    let worker = place.worker().await;
    let ran = place.yadtq(["submit", "greet", "{a: 1}", "--queue", "mail", "--wait"]).await.exits(0);
    ran.mentions("warning: `{a: 1}` is not JSON").prints("\"Hello, {a: 1}\"\n");
    worker.stop().await.unwrap();
}
