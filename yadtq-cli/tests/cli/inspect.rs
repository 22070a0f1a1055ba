//! `yadtq workers`, `queues`, `periodic`, `scheduled` and `ping`.

use serde_json::json;
use yadtq::{Call, Missed, Periodic};

use crate::support::{Place, run};

#[tokio::test]
async fn workers_are_listed() {
    let place = Place::new();
    let none = format!("note: no worker is alive in namespace {}; tasks wait until one starts", place.namespace);
    place.yadtq(["workers"]).await.exits(0).prints("").says(&none);
    place.yadtq(["workers", "--json"]).await.exits(0).quietly().prints("[]\n");

    let worker = place.worker().await;
    place.yadtq(["submit", "fail", "on purpose", "--wait"]).await.exits(1);
    place.yadtq(["submit", "hold", "--id", "long"]).await.exits(0);
    place.until("long", "running").await;
    // The next heartbeat reports it.
    let listed = loop {
        let listed = place.yadtq(["workers", "--json"]).await.exits(0).quietly().json();
        if listed[0]["running"] == 1 {
            break listed;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let first = &listed[0];
    assert_eq!(first["pid"], std::process::id());
    assert_eq!(first["queues"], json!(["default", "mail"]));
    assert_eq!(first["running-ids"], json!(["long"]));
    assert_eq!((&first["processed"], &first["failed"], &first["slots"]), (&json!(1), &json!(1), &json!(8)));

    let human = place.yadtq(["workers"]).await.exits(0).quietly();
    let lines: Vec<_> = human.stdout.lines().collect();
    let titles: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(titles, ["WORKER", "HOST", "PID", "RUNNING", "DONE", "FAILED", "UP", "SEEN", "QUEUES"]);
    assert_eq!(lines.len(), 2, "one line a worker: {human:#?}");
    assert!(lines[1].starts_with(first["id"].as_str().unwrap()), "{human:#?}");
    assert!(lines[1].ends_with("  default, mail"), "{human:#?}");
    assert!(lines[1].contains("  1/8  "), "{human:#?}");
    worker.stop().await.expect("a time after 1970");
    place.yadtq(["workers", "--json"]).await.exits(0).prints("[]\n");
}

#[allow(clippy::disallowed_methods, reason = "the CLI compares with this clock too")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    u64::try_from(since.as_millis()).expect("a time after 1970")
}

#[tokio::test]
async fn queues_are_listed_with_what_waits_in_them() {
    let place = Place::new();
    let none = format!("note: no queue exists in namespace {}; the first task or worker creates one", place.namespace);
    place.yadtq(["queues"]).await.exits(0).prints("").says(&none);
    place.yadtq(["queues", "--json"]).await.exits(0).quietly().prints("[]\n");

    let before = now_ms();
    for _ in 0..2 {
        place.yadtq(["submit", "add", "1", "2"]).await.exits(0);
    }
    place.yadtq(["submit", "greet", "Ada", "--queue", "mail"]).await.exits(0);
    place.yadtq(["submit", "greet", "Eve", "--queue", "mail", "--priority", "high"]).await.exits(0);
    let mut queues = place.yadtq(["queues", "--json"]).await.exits(0).quietly().json();
    for queue in queues.as_array_mut().unwrap() {
        let oldest = queue["oldest-at"].take().as_u64().unwrap();
        assert!((before..=now_ms()).contains(&oldest), "{queue}");
    }
    let queue = |name: &str, priority: &str, waiting: u64| {
        json!({
            "queue": name, "priority": priority, "partitions": 12, "leaderless": 0, "waiting": waiting, "running": 0,
            "oldest-at": null, "depth": waiting, "lag": waiting, "paused": false,
        })
    };
    assert_eq!(queues, json!([queue("default", "normal", 2), queue("mail", "high", 1), queue("mail", "normal", 1)]));
    let human = place.yadtq(["queues"]).await.exits(0).quietly().stdout;
    let lines: Vec<Vec<_>> = human.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["QUEUE", "PRIORITY", "PARTITIONS", "WAITING", "RUNNING", "OLDEST", "LAG", "DEPTH", "STATE"]);
    let of = |line: &[&str]| {
        line.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    };
    let of: Vec<_> = lines[1..].iter().map(|line| of(line)).collect();
    assert_eq!(of, ["default normal 12 2 0 2 2 open", "mail high 12 1 0 1 1 open", "mail normal 12 1 0 1 1 open"]);
    assert!(lines[1][5].ends_with('s'), "an age: {human}");
}

#[tokio::test]
async fn periodic_tasks_are_listed_with_next_and_last() {
    let place = Place::new();
    let none = format!("note: no worker declares a periodic task in namespace {}", place.namespace);
    place.yadtq(["periodic"]).await.exits(0).prints("").says(&none);
    place.yadtq(["periodic", "--json"]).await.exits(0).quietly().prints("[]\n");

    let call = || Call::<i64>::named("add", (1, 2));
    let yearly = Periodic::cron("yearly", "0 3 1 1 *", call().queue("mail")).time_zone("Europe/Berlin");
    let often = Periodic::every("often", std::time::Duration::from_secs(1), call()).missed(Missed::Skip);
    let worker = place.worker_with(|worker| worker.periodic(yearly).periodic(often)).await;
    let listed = loop {
        let listed = place.yadtq(["periodic", "--json"]).await.exits(0).quietly().json();
        if listed.as_array().unwrap().len() == 2 && listed[0]["last"].is_u64() {
            break listed;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let (often, yearly) = (&listed[0], &listed[1]);
    assert_eq!(
        (&often["name"], &often["schedule"], &often["missed"]),
        (&json!("often"), &json!("every 1s"), &json!("skip"))
    );
    assert!(often["next"].as_u64() > often["last"].as_u64() && often.get("time-zone").is_none(), "{often}");
    place.until(often["last-id"].as_str().unwrap(), "success").await;
    assert_eq!((&yearly["name"], &yearly["time-zone"]), (&json!("yearly"), &json!("Europe/Berlin")));
    assert_eq!(
        (&yearly["task"], &yearly["queue"], &yearly["missed"]),
        (&json!("add"), &json!("mail"), &json!("run-once"))
    );
    assert!(yearly["next"].is_u64() && yearly["declared-at"].is_u64() && yearly.get("last").is_none(), "{yearly}");

    let human = place.yadtq(["periodic"]).await.exits(0).quietly();
    let lines: Vec<_> = human.stdout.lines().collect();
    let titles: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(titles, ["NAME", "TASK", "QUEUE", "NEXT", "LAST", "DECLARED", "MISSED", "SCHEDULE"]);
    assert!(
        lines[1].starts_with("often   add   default  ") && lines[1].ends_with("  skip      every 1s"),
        "{human:#?}"
    );
    assert!(lines[2].contains("  in ") && lines[2].contains("  never  "), "{human:#?}");
    assert!(lines[2].ends_with("  run-once  0 3 1 1 * Europe/Berlin"), "{human:#?}");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn ping_reports_the_servers() {
    let place = Place::new();
    let ran = place.yadtq(["ping"]).await.exits(0).quietly();
    let starts: Vec<_> = ran.stdout.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>()).collect();
    assert_eq!(starts[0], ["kafka", "ok", "kafka,"], "{ran:#?}");
    assert_eq!(starts[1][..2], ["redis", "ok"], "{ran:#?}");

    let json = place.yadtq(["ping", "--json"]).await.exits(0).quietly().json();
    for server in ["kafka", "redis"] {
        let finding = &json[server];
        assert_eq!(finding["ok"], true, "{json}");
        assert!(
            finding["summary"].is_string() && finding["took-ms"].is_u64() && finding["warnings"].is_array(),
            "{json}"
        );
    }
}

#[tokio::test]
async fn the_environment_can_name_the_servers() {
    let place = Place::new();
    let mut command = crate::support::yadtq();
    command.envs([("YADTQ_KAFKA", &place.kafka), ("YADTQ_REDIS", &place.redis), ("YADTQ_NAMESPACE", &place.namespace)]);
    let id = run(command.args(["submit", "add", "1", "2"]), "").await.exits(0).line().to_owned();
    place.yadtq(["status", &id]).await.exits(0);
}

#[tokio::test]
async fn verbose_logs_go_to_stderr() {
    let place = Place::new();
    place.yadtq(["-v", "workers", "--json"]).await.exits(0).mentions("backend_connected").prints("[]\n");
}

#[tokio::test]
async fn scheduled_tasks_are_listed_run_and_cancelled() {
    let place = Place::new();
    let none = format!("note: no task waits for its due time in namespace {}", place.namespace);
    place.yadtq(["scheduled"]).await.exits(0).prints("").says(&none);
    let worker = place.worker().await;
    place.yadtq(["submit", "add", "1", "2", "--id", "soon", "--countdown", "1h"]).await.exits(0);
    place.yadtq(["submit", "greet", "Ada", "--id", "late", "--eta", "2999-01-31T08:00:00Z"]).await.exits(0);
    let listed = place.yadtq(["scheduled", "--json"]).await.exits(0).quietly().json();
    let ids: Vec<_> = listed["tasks"].as_array().unwrap().iter().map(|task| &task["id"]).collect();
    assert_eq!((ids, &listed["total"]), (vec![&json!("soon"), &json!("late")], &json!(2)));
    let human = place.yadtq(["scheduled", "--limit", "1"]).await.exits(0);
    assert!(human.stdout.contains("in 59m") && human.stdout.lines().count() == 2, "{human:#?}");
    human.says("note: the first 1 of 2; use --limit to show more");
    let status = place.yadtq(["status", "soon"]).await.exits(0).quietly();
    assert!(status.stdout.contains("scheduled") && status.stdout.contains("in 59m"), "{status:#?}");

    place.yadtq(["scheduled", "run", "soon"]).await.exits(0).quietly().prints("soon runs now\n");
    place.until("soon", "success").await;
    place.yadtq(["scheduled", "cancel", "late"]).await.exits(0).prints("late is revoked, and will not run\n");
    place.until("late", "revoked").await;
    place.yadtq(["scheduled", "run", "late"]).await.exits(1).prints("late does not wait, or no longer\n");
    let outcomes = place.yadtq(["scheduled", "cancel", "soon", "--json"]).await.exits(1).json();
    assert_eq!(outcomes, json!([{"id": "soon", "outcome": "ended"}]));
    assert_eq!(place.yadtq(["scheduled", "--json"]).await.exits(0).json()["total"], 0);

    place.yadtq(["submit", "add", "1", "2", "--countdown", "0s"]).await.exits(2).mentions("countdown");
    place.yadtq(["submit", "add", "1", "2", "--eta", "9999-12-31T00:00:00Z"]).await.exits(2).mentions("eta");
    place.yadtq(["submit", "add", "1", "2", "--max-retries", "100000"]).await.exits(2).mentions("max_retries");
    worker.stop().await.unwrap();
}
