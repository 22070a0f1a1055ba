//! `yadtq dlq`.

use serde_json::{Value, json};

use crate::support::Place;

/// Makes a dead letter: the task gets a string where it expects a number.
async fn make_dead_letter(place: &Place, id: &str) {
    place.yadtq(["submit", "add", "one", "2", "--id", id, "--wait"]).await.exits(1);
    // Callers are notified of the outcome before Kafka acknowledges the letter.
    while place.yadtq(["dlq", "show", id]).await.code == 3 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["letters"].as_array().expect("a list").iter().map(|letter| letter["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown() {
    let place = Place::new();
    place.yadtq(["dlq", "list"]).await.exits(0).prints("").says("note: no dead letter matches");
    place.yadtq(["dlq", "list", "--json"]).await.exits(0).quietly().prints("{\"letters\":[]}\n");
    let unknown = "error: no dead letter with task id or place x; `yadtq dlq list` lists those that were not replayed or purged yet";
    place.yadtq(["dlq", "show", "x"]).await.exits(3).says(unknown).prints("");

    let worker = place.worker().await;
    for id in ["d1", "d2", "d3"] {
        make_dead_letter(&place, id).await;
    }
    worker.stop().await.unwrap();
    let human = place.yadtq(["dlq", "list"]).await.exits(0).quietly().stdout;
    let lines: Vec<_> = human.lines().collect();
    let titles: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(titles, ["PLACE", "DIED", "REASON", "QUEUE", "TASK", "ID", "ATTEMPTS", "ERROR"]);
    assert!(lines[1].contains("  arguments  default  add   d1         1  "), "{human}");

    let first = place.yadtq(["dlq", "list", "--limit", "2", "--json"]).await.exits(0).quietly().json();
    assert_eq!(ids(&first), ["d1", "d2"], "oldest first");
    let cursor = first["next"].as_str().unwrap();
    let note = format!("note: there are more; use --cursor {cursor}");
    place.yadtq(["dlq", "list", "--limit", "2"]).await.exits(0).says(&note);
    let last = place.yadtq(["dlq", "list", "--limit", "2", "--cursor", cursor, "--json"]).await.exits(0).json();
    assert_eq!((ids(&last), last.get("next")), (vec!["d3"], None));
    for (args, count) in [
        (["--task", "add", "--queue", "default"], 3),
        (["--reason", "arguments", "--newer-than", "1h"], 3),
        (["--task", "add", "--older-than", "1h"], 0),
        (["--queue", "mail", "--task", "add"], 0),
    ] {
        let mut command = place.command();
        let page = crate::support::run(command.args(["dlq", "list", "--json"]).args(args), "").await.exits(0).json();
        assert_eq!(ids(&page).len(), count, "{args:?}");
    }

    let letter = &first["letters"][0];
    let shown = place.yadtq(["dlq", "show", "d1", "--json"]).await.exits(0).quietly().json();
    assert_eq!(&shown, letter);
    let record: Value = serde_json::from_str(letter["value"].as_str().unwrap()).unwrap();
    assert_eq!((&record["task-id"], &record["args"]), (&json!("d1"), &json!(["one", 2])));
    let human = place.yadtq(["dlq", "show", letter["place"].as_str().unwrap()]).await.exits(0).quietly().stdout;
    for line in ["id        d1", "reason    arguments", "attempts  1", "queue     default"] {
        assert!(human.lines().any(|l| l == line), "no `{line}`: {human}");
    }
}

#[tokio::test]
async fn dead_letters_are_replayed_and_purged() {
    let place = Place::new();
    let none = "note: no dead letter matches";
    place.yadtq(["dlq", "replay", "--all"]).await.exits(3).says(none).prints("replayed 0\n");
    place.yadtq(["dlq", "purge", "--all", "--yes"]).await.exits(3).says(none).prints("purged 0\n");
    place.yadtq(["dlq", "replay", "x"]).await.exits(3).mentions("no dead letter with task id or place x");

    let worker = place.worker().await;
    for id in ["d1", "d2", "d3"] {
        make_dead_letter(&place, id).await;
    }
    let lacks = "warning: no dead letter has the id or place x";
    place.yadtq(["dlq", "purge", "d2", "x", "--dry-run"]).await.exits(3).says(lacks).prints("would purge 1\n");
    place.yadtq(["dlq", "replay", "d2", "x"]).await.exits(3).says(lacks).prints("replayed 1\n");
    // Its arguments are still wrong.
    place.until("d2", "failure").await;
    worker.stop().await.expect("it stops");
    let again = place.yadtq(["dlq", "list", "--json"]).await.exits(0).json();
    assert_eq!(ids(&again), ["d1", "d3", "d2"], "a new letter, not the old one");
    place.yadtq(["dlq", "replay", "--task", "add"]).await.exits(0).quietly().prints("replayed 3\n");
    let status = place.yadtq(["status", "d1", "--json"]).await.exits(0).json();
    assert_eq!((&status["status"], &status["attempt"]), (&json!("queued"), &json!(1)));
    place.yadtq(["dlq", "list", "--json"]).await.exits(0).prints("{\"letters\":[]}\n");

    let worker = place.worker().await;
    for id in ["d1", "d2", "d3"] {
        place.until(id, "failure").await;
    }
    worker.stop().await.expect("it stops");
    let dry = place.yadtq(["dlq", "purge", "--all", "--dry-run", "--json"]).await.exits(0).quietly().json();
    assert_eq!(dry, json!({"would-purge": 3}));
    let unconfirmed = "error: cannot ask for confirmation, because stdin is not a terminal; use --yes to purge, or \
                       --dry-run to count";
    place.yadtq(["dlq", "purge", "--all"]).await.exits(2).says(unconfirmed).prints("");
    let one = place.yadtq(["dlq", "purge", "d3", "x", "--yes", "--json"]).await.exits(3).says(lacks).json();
    assert_eq!(one, json!({"purged": 1}));
    place.yadtq(["dlq", "purge", "--all", "--yes"]).await.exits(0).quietly().prints("purged 2\n");
    place.yadtq(["dlq", "list", "--json"]).await.exits(0).prints("{\"letters\":[]}\n");
}

#[tokio::test]
async fn a_task_that_failed_for_good_is_a_dead_letter() {
    let place = Place::new();
    let worker = place.worker().await;
    place.yadtq(["submit", "fail", "no money", "--id", "poor", "--max-retries", "1", "--wait"]).await.exits(1);
    while place.yadtq(["dlq", "show", "poor"]).await.code == 3 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let letter = place.yadtq(["dlq", "show", "poor", "--json"]).await.exits(0).json();
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("retries"), &json!(2)));
    assert!(letter["error"].as_str().is_some_and(|error| error.contains("no money")), "{letter}");
    // A replay gives the task all its attempts again.
    place.yadtq(["dlq", "replay", "poor"]).await.exits(0).prints("replayed 1\n");
    let place_of_old = letter["place"].as_str().expect("a place").to_owned();
    while place.yadtq(["dlq", "show", "poor"]).await.code == 3 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let letter = place.yadtq(["dlq", "show", "poor", "--json"]).await.exits(0).json();
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("retries"), &json!(2)));
    place.yadtq(["dlq", "show", &place_of_old]).await.exits(3);
    worker.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_letter_that_cannot_be_replayed_is_listed() {
    let place = Place::new();
    let worker = place.worker().await;
    make_dead_letter(&place, "kept").await;
    worker.stop().await.expect("it stops");
    place.forge("kept", &[("status", "success"), ("task", "add"), ("queue", "default")]).await;
    let ran = place.yadtq(["dlq", "replay", "kept"]).await.exits(1).prints("replayed 0, 1 cannot be replayed\n");
    ran.mentions("warning: kept at ").mentions(": its task has not failed, it is success");
    let json = place.yadtq(["dlq", "replay", "--all", "--json"]).await.exits(1).quietly().json();
    assert_eq!((&json["refused"], &json["refusals"][0]["id"]), (&json!(1), &json!("kept")));
    assert_eq!(json["refusals"][0]["why"], "its task has not failed, it is success");
}

#[tokio::test]
async fn wrong_options_are_named() {
    let place = Place::new();
    for (args, error) in [
        (["dlq", "list", "--cursor", "x"], "error: cursor: `x` is not a cursor; take the cursor from an earlier page"),
        (["dlq", "list", "--limit", "0"], "error: limit: a page has 1 to 10000 letters"),
        (["dlq", "list", "--limit", "10001"], "error: limit: a page has 1 to 10000 letters"),
    ] {
        place.yadtq(args).await.exits(2).says(error);
    }
    let which =
        "error: select dead letters: by id, with a filter such as --task or --reason, or all of them with --all";
    place.yadtq(["dlq", "replay"]).await.exits(2).says(which);
    place.yadtq(["dlq", "purge", "--yes"]).await.exits(2).says(which);
    place.yadtq(["dlq", "purge", "--all", "--task", "add"]).await.exits(2).mentions("contradict each other");
    place.yadtq(["dlq", "list", "--older-than", "1 parsec"]).await.exits(2).mentions("unknown time unit");
}
