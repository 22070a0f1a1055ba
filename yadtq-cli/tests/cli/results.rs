//! `yadtq status` and `yadtq result`.

use serde_json::json;

use crate::support::Place;

/// A UUIDv7 of 2023.
const OLD: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test]
async fn a_task_that_succeeded() {
    let place = Place::new();
    let worker = place.worker().await;
    place.yadtq(["submit", "add", "1", "2", "--id", "sum", "--wait"]).await.exits(0);

    let status = place.yadtq(["status", "sum"]).await.exits(0).quietly();
    for line in ["task     add", "id       sum", "queue    default", "result   3"] {
        assert!(status.stdout.lines().any(|l| l == line), "no `{line}`: {status:#?}");
    }
    assert!(status.stdout.contains("status   success after "), "{status:#?}");
    assert!(status.stdout.lines().all(|line| line == line.trim_end()), "{status:#?}");
    let status = place.yadtq(["--json", "status", "sum"]).await.exits(0).quietly().json();
    assert_eq!((&status["status"], &status["result"], &status["attempt"]), (&json!("success"), &json!(3), &json!(1)));
    assert!(status["finished-at"].is_u64(), "{status}");

    place.yadtq(["result", "sum"]).await.exits(0).quietly().prints("3\n");
    place.yadtq(["result", "sum", "--wait"]).await.exits(0).quietly().prints("3\n");
    let result = place.yadtq(["result", "sum", "--json"]).await.exits(0).quietly().json();
    assert_eq!(result, json!({"id": "sum", "status": "success", "result": 3}));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_program_reads_every_byte_of_a_result() {
    let place = Place::new();
    let odd = "\"a\u{7f}b\u{9b}31m\u{202e}\"";
    place.forge("odd", &[("status", "success"), ("task", "add"), ("queue", "default"), ("result", odd)]).await;
    place.yadtq(["result", "odd"]).await.exits(0).quietly().prints(&format!("{odd}\n"));
    let json = place.yadtq(["result", "odd", "--json"]).await.exits(0).quietly();
    assert!(json.stdout.contains(odd), "{json:#?}");
}

#[tokio::test]
async fn a_task_that_failed() {
    let place = Place::new();
    let worker = place.worker().await;
    let failed = "error: task bad (fail) failed after 1 attempt(s): error: no\\nmoney";
    let submit = ["submit", "fail", "no\nmoney", "--id", "bad", "--wait"];
    place.yadtq(submit).await.exits(1).says(failed).prints("");

    let status = place.yadtq(["status", "bad"]).await.exits(0);
    assert!(status.stdout.ends_with("error    error: no\n         money\n"), "{status:#?}");
    place.yadtq(["result", "bad"]).await.exits(1).says(failed).prints("");
    let result = place.yadtq(["result", "bad", "--json"]).await.exits(1).says(failed).json();
    let error = json!({"kind": "error", "message": "no\nmoney", "attempt": 1});
    assert_eq!(result, json!({"id": "bad", "status": "failure", "error": error}));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_was_revoked() {
    let place = Place::new();
    place.yadtq(["submit", "add", "1", "2", "--id", "gone"]).await.exits(0);
    place.yadtq(["revoke", "gone"]).await.exits(0).quietly().prints("revoked: the task will not run\n");
    place.yadtq(["result", "gone"]).await.exits(1).says("error: task gone was revoked: it was asked to end").prints("");
    let result = place.yadtq(["result", "gone", "--wait", "--json"]).await.exits(1).json();
    let error = json!({"kind": "revoked", "message": "it was asked to end"});
    assert_eq!(result, json!({"id": "gone", "status": "revoked", "error": error}));
    place.yadtq(["status", "gone"]).await.exits(0);

    let worker = place.worker().await;
    place.yadtq(["submit", "add", "1", "2", "--id", "kept", "--wait"]).await.exits(0);
    let late = place.yadtq(["revoke", "kept", "--json"]).await.exits(1).json();
    assert_eq!(late, json!({"id": "kept", "outcome": "ended", "status": "success"}));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_whose_result_was_not_kept() {
    let place = Place::new();
    let worker = place.worker().await;
    place.yadtq(["submit", "add", "1", "2", "--id", "quiet", "--result-ttl", "0s", "--wait"]).await.exits(0).prints("");
    worker.stop().await.unwrap();
    let ran = place.yadtq(["result", "quiet"]).await.exits(0).prints("");
    ran.says("note: task quiet succeeded; its result was not kept, as requested");
}

#[tokio::test]
async fn a_task_that_reports_its_progress() {
    let place = Place::new();
    let fields = [("status", "running"), ("task", "import"), ("progress", r#"{"rows":[1,"\u001b"]}"#)];
    place.forge("far", &fields).await;
    let status = place.yadtq(["status", "far"]).await.exits(0).quietly();
    let line = r#"progress {"rows":[1,"\u001b"]}"#;
    assert!(status.stdout.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line), "{status:#?}");
    let status = place.yadtq(["status", "far", "--json"]).await.exits(0).quietly().json();
    assert_eq!(status["progress"], json!({"rows": [1, "\u{1b}"]}));

    let worker = place.worker().await;
    place.yadtq(["submit", "climb", "--id", "up"]).await.exits(0);
    let watched = place.yadtq(["status", "up", "--watch"]).await.exits(0).says("note: progress \"step 10\"");
    assert!(watched.stdout.contains("status   success after "), "{watched:#?}");
    let again = place.yadtq(["status", "up", "--watch", "--json"]).await.exits(0).quietly().json();
    assert_eq!((&again["status"], &again["progress"]), (&json!("success"), &json!(null)));
    place.yadtq(["status", "none", "--watch"]).await.exits(3).prints("");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_has_not_ended() {
    let place = Place::new();
    place.yadtq(["submit", "hold", "--id", "long"]).await.exits(0);
    let early = place.yadtq(["result", "long"]).await.exits(4).prints("");
    early.says("error: task long has not ended yet, its status is queued; use --wait to wait for it");

    let worker = place.worker().await;
    place.until("long", "running").await;
    let status = place.yadtq(["status", "long"]).await.exits(0);
    assert!(status.stdout.contains("status   running for "), "{status:#?}");
    let json = place.yadtq(["result", "long", "--json"]).await.exits(4).json();
    assert_eq!(json, json!({"id": "long", "status": "running"}));
    let again = "it continues, and `yadtq result long --wait` waits for it";
    let waited = place.yadtq(["result", "long", "--wait", "--timeout", "200ms"]).await.exits(4).prints("");
    waited.says(&format!("error: task long did not end within 200ms, its status is running; {again}"));
    let waited = place.yadtq(["submit", "hold", "--wait", "--timeout", "200ms"]).await.exits(4).prints("");
    waited.mentions("did not end within 200ms");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn waiting_begins_before_the_task_ends() {
    let place = Place::new();
    place.yadtq(["submit", "add", "1", "2", "--id", "later"]).await.exits(0);
    let (waited, worker) = tokio::join!(place.yadtq(["result", "later", "--wait", "--timeout", "30s"]), place.worker());
    waited.exits(0).quietly().prints("3\n");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn an_unknown_task() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let unknown = "error: no task lost in the result backend; check the id, YADTQ_REDIS and YADTQ_NAMESPACE";
    for args in [["status", "lost", "--json"], ["result", "lost", "--json"], ["result", "lost", "--wait"]] {
        place.yadtq(args).await.exits(3).says(unknown).prints("");
    }
    let expired = format!("error: the result of task {OLD} has expired");
    place.yadtq(["status", OLD]).await.exits(3).says(&expired);
    place.yadtq(["result", OLD, "--wait"]).await.exits(3).says(&expired);

    elsewhere.yadtq(["submit", "add", "1", "2", "--id", "lost"]).await.exits(0);
    place.yadtq(["status", "lost"]).await.exits(3).says(unknown);
}

#[tokio::test]
async fn text_from_others_cannot_control_the_terminal() {
    let place = Place::new();
    let evil = [("status", "queued"), ("task", "add\u{1b}]0;owned\u{7}"), ("queue", "a\nb")];
    place.forge("evil\u{1b}[2J", &evil).await;
    let ran = place.yadtq(["status", "evil\u{1b}[2J"]).await.exits(0).quietly();
    assert!(!ran.stdout.contains(['\u{1b}', '\u{7}']), "{ran:#?}");
    assert!(ran.stdout.contains("a\\nb"), "{ran:#?}");
}

#[tokio::test]
async fn a_long_result_is_cut_in_status_and_whole_in_result() {
    let place = Place::new();
    let long = format!("\"{}\"", "ü".repeat(5_000));
    let fields = [("status", "success"), ("task", "add"), ("queue", "default"), ("result", &*long)];
    place.forge("wide", &fields).await;
    let status = place.yadtq(["status", "wide"]).await.exits(0);
    assert!(status.stdout.contains("… (10002 bytes; yadtq result wide prints all)"), "{status:#?}");
    assert!(status.stdout.len() < 3_000, "{status:#?}");
    place.yadtq(["result", "wide"]).await.exits(0).prints(&format!("{long}\n"));
}
