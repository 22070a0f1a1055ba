//! What clients are notified of: replies, and progress.

use super::*;

/// Opens a reply channel and waits until it is open.
pub(super) async fn open(store: &dyn Subject, client: &str) -> Box<dyn NoticeReceiver> {
    let mut replies = store.replies(&client.into()).await.unwrap();
    assert_eq!(next(&mut replies).await, Notice::Missed);
    replies
}

pub(super) async fn next(replies: &mut Box<dyn NoticeReceiver>) -> Notice {
    timeout(Duration::from_secs(10), replies.next()).await.expect("a notice within 10 s")
}

/// As many replies as that, in the order of their ids: in a cluster, those of one call may come in any order.
pub(super) async fn next_replies(replies: &mut Box<dyn NoticeReceiver>, count: usize) -> Vec<Reply> {
    let batch = |notice| if let Notice::Replies(batch) = notice { Ok(batch) } else { Err(notice) };
    let mut all = next_of(replies, count, batch).await;
    all.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    all
}

/// As many things of one kind as that.
pub(super) async fn next_of<T: std::fmt::Debug>(
    replies: &mut Box<dyn NoticeReceiver>, count: usize, batch: impl Fn(Notice) -> Result<Vec<T>, Notice>,
) -> Vec<T> {
    let mut all = Vec::new();
    while all.len() < count {
        match batch(next(replies).await) {
            Ok(batch) => all.extend(batch),
            Err(other) => panic!("{other:?} after {all:?}"),
        }
    }
    all
}

pub(super) async fn replies_reach_who_asked(store: &dyn Subject) {
    let (mut mine, mut other) = (open(store, "mine").await, open(store, "other").await);
    let asked = ask(1, 1);
    let mut runs = Vec::new();
    for (result, to) in [("1", "mine"), ("2", "other"), ("3", "mine"), ("4", "nobody")] {
        let id = TaskId::new();
        let token = granted(store, &id, &asked).await;
        runs.push(Finish { reply_to: Some(to.into()), ..success(lease(&id, &asked, token, true), result) });
    }
    store.finish(&runs).await.unwrap();
    let reply = |at: usize| Reply {
        id: runs[at].lease.id.clone(),
        task: None,
        status: Status::Success,
        result: runs[at].end.result().cloned(),
        error: None,
    };
    assert_eq!(next_replies(&mut mine, 2).await, [reply(0), reply(2)]);
    assert_eq!(next_replies(&mut other, 1).await, [reply(1)]);
}

pub(super) async fn replies_reach_all_that_wait(store: &dyn Subject) {
    let (mut first, mut second) = (open(store, "first").await, open(store, "second").await);
    let (id, asked) = (TaskId::new(), ask(1, 1));
    store.submit(&[submission(&id)]).await.unwrap();
    for client in ["first", "second", "second"] {
        only(store.read(std::slice::from_ref(&id), Some(&client.into())).await).unwrap();
    }
    let token = granted(store, &id, &asked).await;
    let reply_to = Some("first".into());
    let run = Finish { reply_to, ..ended(lease(&id, &asked, token, true), End::failed("{}".into())) };
    finish(store, &run).await;
    let (task, error) = (Some("add".into()), Some("{}".into()));
    let expected = Notice::Replies(vec![Reply { id, task, status: Status::Failure, result: None, error }]);
    assert_eq!(next(&mut first).await, expected);
    assert_eq!(next(&mut second).await, expected);
}

pub(super) async fn a_reply_comes_once(store: &dyn Subject) {
    let mut replies = open(store, "once").await;
    let (ids, asked) = ([TaskId::new(), TaskId::new()], ask(1, 1));
    let mut tokens = Vec::new();
    for id in &ids {
        tokens.push(granted(store, id, &asked).await);
    }
    let run = |at: usize, token| Finish {
        reply_to: Some("once".into()),
        ..success(lease(&ids[at], &asked, token, true), "3")
    };
    // Stale, recorded, recorded again: only the second is news. The last one shows that nothing came between.
    for run in [run(0, 1), run(0, tokens[0]), run(0, tokens[0]), run(1, tokens[1])] {
        finish(store, &run).await;
    }
    for id in ids {
        let reply = Reply { id, task: None, status: Status::Success, result: Some("3".into()), error: None };
        assert_eq!(next(&mut replies).await, Notice::Replies(vec![reply]));
    }
}

pub(super) async fn few_can_wait_for_one_task(store: &dyn Subject) {
    let mut late = open(store, "late").await;
    let (ids, asked) = ([TaskId::new(), TaskId::new()], ask(1, 1));
    let tokens = [granted(store, &ids[0], &asked).await, granted(store, &ids[1], &asked).await];
    for client in (0..MAX_WAITERS).map(|client| format!("c{client}").into()).chain(["late".into()]) {
        only(store.read(&ids[..1], Some(&client)).await).unwrap();
    }
    for (at, reply_to) in [None, Some("late".into())].into_iter().enumerate() {
        let run = success(lease(&ids[at], &asked, tokens[at], true), "3");
        finish(store, &Finish { reply_to, ..run }).await;
    }
    assert_eq!(next_replies(&mut late, 1).await[0].id, ids[1]);
}

pub(super) fn report(id: &TaskId, token: u64, number: u64, value: &str) -> Report {
    Report { id: id.clone(), token, progress: Progress { number, value: value.into() } }
}

pub(super) async fn progress(store: &dyn Subject, report: &Report) -> bool {
    only(store.progress(std::slice::from_ref(report)).await)
}

pub(super) async fn progress_follows_the_token(store: &dyn Subject) {
    let (id, ask) = (TaskId::new(), ask(1, 1));
    assert!(!progress(store, &report(&id, 7, 1, "1")).await);
    assert_eq!(read(store, &id).await, None, "a hint makes no record");
    let token = granted(store, &id, &ask).await;
    let value = async || read(store, &id).await.unwrap().progress.map(|progress| progress.value.to_string());
    assert!(!progress(store, &report(&id, token - 1, 9, "9")).await);
    assert_eq!(value().await, None);
    let first = report(&id, token, 4, r#"{"percent":"ä\n"}"#);
    assert!(progress(store, &first).await && progress(store, &first).await, "sent twice");
    assert_eq!(value().await.as_deref(), Some(r#"{"percent":"ä\n"}"#));
    assert!(progress(store, &report(&id, token, 12, "12")).await);
    assert!(progress(store, &report(&id, token, 5, "5")).await);
    assert_eq!(value().await.as_deref(), Some("12"), "numbers are compared, not texts");
}

/// As many reports as that, in whatever batches they come.
pub(super) async fn next_reports(replies: &mut Box<dyn NoticeReceiver>, count: usize) -> Vec<Report> {
    let batch = |notice| if let Notice::Progress(batch) = notice { Ok(batch) } else { Err(notice) };
    next_of(replies, count, batch).await
}

pub(super) async fn progress_reaches_who_watches(store: &dyn Subject) {
    let (mut watcher, mut waiter) = (open(store, "watcher").await, open(store, "waiter").await);
    let (ids, asked) = ([TaskId::new(), TaskId::new()], ask(1, 1));
    let tokens = [granted(store, &ids[0], &asked).await, granted(store, &ids[1], &asked).await];
    let unwatched = report(&ids[0], tokens[0], 1, "1");
    assert!(progress(store, &unwatched).await);
    for _ in 0..2 {
        let read = store.watch(&ids, &"watcher".into()).await.unwrap();
        assert_eq!(read[0].as_ref().unwrap().as_ref().unwrap().progress, Some(unwatched.progress.clone()));
    }
    only(store.read(&ids[..1], Some(&"waiter".into())).await);
    let reports = [report(&ids[0], tokens[0], 2, "2"), report(&ids[1], tokens[1], 3, "\"three\"")];
    for _ in 0..2 {
        // Sent twice, and once by a run that is no more.
        let stale = report(&ids[1], tokens[1] - 1, 9, "9");
        let answers = store.progress(&[reports[0].clone(), reports[1].clone(), stale]).await.unwrap();
        assert!(matches!(answers[..], [Ok(true), Ok(true), Ok(false)]), "{answers:?}");
    }
    let mut received = next_reports(&mut watcher, 2).await;
    received.sort_by_key(|report| report.progress.number);
    assert_eq!(received, reports);

    // The reports of the next run come, too: nobody asked again.
    give_back(store, lease(&ids[0], &asked, tokens[0], true)).await;
    let token = granted(store, &ids[0], &ask(1, 2)).await;
    let later = report(&ids[0], token, 1, "0");
    assert!(progress(store, &later).await);
    assert_eq!(next_reports(&mut watcher, 1).await, [later]);
    // And the end, by both: whoever watches waits, and whoever only waits got nothing else.
    succeed(store, lease(&ids[0], &asked, token, true), "3").await;
    assert_eq!(next_replies(&mut watcher, 1).await[0].id, ids[0]);
    assert_eq!(next_replies(&mut waiter, 1).await[0].id, ids[0]);
}

pub(super) async fn progress_ends_with_the_run(store: &dyn Subject) {
    let (id, asked) = (TaskId::new(), ask(1, 1));
    let token = granted(store, &id, &asked).await;
    let progress_now = async || read(store, &id).await.unwrap().progress;
    let said = report(&id, token, 1, "50");
    assert!(progress(store, &said).await);
    give_back(store, lease(&id, &asked, token, true)).await;
    assert_eq!(progress_now().await, None);
    assert!(!progress(store, &report(&id, token, 2, "60")).await, "given back, so nobody's");
    // Whoever takes over a crashed run begins anew.
    let crashed = TaskState { progress: Some(said.progress.clone()), ..running(store, -1).await };
    store.plant(&id, Some(crashed)).await;
    let token = granted(store, &id, &ask(1, 2)).await;
    assert_eq!(progress_now().await, None);
    assert!(progress(store, &report(&id, token, 1, "10")).await);
    succeed(store, lease(&id, &asked, token, true), "3").await;
    assert_eq!(progress_now().await, None);
    assert!(!progress(store, &report(&id, token, 2, "99")).await);
    assert_eq!(progress_now().await, None);
}

/// What a claim ends, or the return of a run, is an end like any other.
pub(super) async fn waiters_are_notified_of_ends_without_a_result(store: &dyn Subject) {
    let mut replies = open(store, "waits").await;
    let client: ClientId = "waits".into();
    for (revoke, deliveries, given_back) in [(true, 0, false), (false, 5, false), (true, 0, true)] {
        let (id, asked) = (TaskId::new(), ask(1, 1));
        let lease_left_ms = if given_back { 60_000 } else { -1 };
        store.plant(&id, Some(TaskState { revoke, deliveries, ..running(store, lease_left_ms).await })).await;
        only(store.read(std::slice::from_ref(&id), Some(&client)).await).unwrap();
        for _ in 0..2 {
            match given_back {
                true => assert_eq!(give_back(store, lease(&id, &asked, 7, true)).await, Finished::Recorded),
                false => drop(claim(store, &worker("w2"), &id, &ask(1, 2)).await),
            }
        }
        let state = read(store, &id).await.unwrap();
        let kind = if revoke { "revoked" } else { "deliveries" };
        assert!(state.error.as_ref().unwrap().contains(kind), "{state:?}");
        let reply = Reply::of(&id, &state).unwrap();
        assert_eq!(reply.task.as_deref(), Some("add"));
        assert_eq!(next_replies(&mut replies, 1).await, [reply], "once");
    }
}
