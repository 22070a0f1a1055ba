//! `yadtq pause`, `resume`, `purge`, `disable`, `enable` and `controls`.

use serde_json::json;

use crate::support::Place;

#[tokio::test]
async fn queues_are_paused_and_resumed() {
    let place = Place::new();
    let unknown = format!("note: there is no queue mail in namespace {} yet", place.namespace);
    place.yadtq(["pause", "mail"]).await.exits(0).prints("paused mail\n").says(&unknown);
    let worker = place.worker().await;
    let id = place.yadtq(["submit", "greet", "Ada", "--queue", "mail"]).await.exits(0).line().to_owned();
    place.yadtq(["submit", "add", "1", "2", "--wait"]).await.exits(0).prints("3\n");
    place.until(&id, "queued").await;
    let queues = place.yadtq(["queues", "--json"]).await.exits(0).quietly().json();
    let states: Vec<_> = queues.as_array().unwrap().iter().map(|row| (&row["queue"], &row["paused"])).collect();
    assert_eq!(states, [(&json!("default"), &json!(false)), (&json!("mail"), &json!(true))]);
    let human = place.yadtq(["queues"]).await.exits(0).quietly().stdout;
    let line = human.lines().find(|line| line.starts_with("mail ")).unwrap();
    assert!(line.ends_with("  paused"), "{human}");

    let resumed = place.yadtq(["resume", "mail", "--json"]).await.exits(0).quietly().json();
    assert_eq!(resumed, json!({"queue": "mail", "paused": false}));
    place.yadtq(["result", &id, "--wait"]).await.exits(0).prints("\"Hello, Ada\"\n");
    worker.stop().await.unwrap();
    place.yadtq(["pause", "control"]).await.exits(2).mentions("reserved");
}

#[tokio::test]
async fn a_purge_needs_a_confirmation() {
    let place = Place::new();
    let id = place.yadtq(["submit", "greet", "Ada", "--queue", "mail"]).await.exits(0).line().to_owned();
    let unconfirmed = "error: cannot ask for confirmation, because stdin is not a terminal; use --yes to purge";
    place.yadtq(["purge", "mail"]).await.exits(2).says(unconfirmed);
    let purged = place.yadtq(["purge", "mail", "--yes", "--json"]).await.exits(0).quietly().json();
    assert_eq!(purged, json!({"queue": "mail", "tasks": 1}));
    let worker = place.worker().await;
    let revoked = format!("error: task {id} was revoked: its queue was purged");
    place.yadtq(["result", &id, "--wait"]).await.exits(1).says(&revoked);
    worker.stop().await.unwrap();
    let again = place.yadtq(["purge", "nail", "--yes"]).await.exits(0);
    again.prints("purged nail; 0 task(s) waited or ran in it\n").mentions("there is no queue nail");
}

#[tokio::test]
async fn tasks_are_disabled_and_enabled() {
    let place = Place::new();
    let none = format!("note: no controls are in effect in namespace {}", place.namespace);
    place.yadtq(["controls"]).await.exits(0).prints("").says(&none);
    let nothing = "{\"paused\":[],\"disabled\":[],\"purged\":[]}\n";
    place.yadtq(["controls", "--json"]).await.exits(0).quietly().prints(nothing);

    place.yadtq(["disable", "greet"]).await.exits(0).quietly().prints("disabled greet; its tasks wait\n");
    let disabled = place.yadtq(["disable", "add", "--dead-letter", "--json"]).await.exits(0).quietly().json();
    assert_eq!(disabled, json!({"task": "add", "disabled": true, "then": "dead-letter"}));
    place.yadtq(["pause", "mail"]).await.exits(0);
    let controls = place.yadtq(["controls", "--json"]).await.exits(0).quietly().json();
    assert_eq!(controls["paused"][0]["queue"], "mail");
    assert_eq!(
        (&controls["disabled"][0]["task"], &controls["disabled"][0]["then"]),
        (&json!("add"), &json!("dead-letter"))
    );
    assert_eq!((&controls["disabled"][1]["task"], &controls["disabled"][1]["then"]), (&json!("greet"), &json!("wait")));
    let human = place.yadtq(["controls"]).await.exits(0).quietly().stdout;
    let titles: Vec<_> = human.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["CONTROL", "SINCE", "TASKS", "QUEUE", "OR", "TASK"]);
    assert_eq!(human.lines().count(), 4, "{human}");

    let worker = place.worker().await;
    place.yadtq(["submit", "add", "1", "2", "--id", "dead", "--wait"]).await.exits(1).mentions("disabled");
    place.yadtq(["enable", "add"]).await.exits(0).quietly().prints("enabled add\n");
    // The worker may learn it a little later.
    while place.yadtq(["submit", "add", "1", "2", "--wait"]).await.code != 0 {}
    while place.yadtq(["dlq", "show", "dead"]).await.code == 3 {}
    place.yadtq(["dlq", "replay", "--reason", "disabled"]).await.exits(0);
    place.until("dead", "success").await;
    worker.stop().await.unwrap();
    place.yadtq(["disable", ""]).await.exits(2).mentions("a name has 1 to 256 bytes");
}
