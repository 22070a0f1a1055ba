//! Headers go with a task wherever it goes, and on to the tasks that it sends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use yadtq::{Client, Context, Error, State, TaskError, TaskId, Worker};
use yadtq_tests::until;

use super::Bench;

const WAIT: Duration = Duration::from_secs(30);
/// Longer than a worker keeps a delayed task in memory without having read it back.
const DELAY: Duration = Duration::from_millis(300);

/// What a run was given.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    tenant: Option<String>,
    names: Vec<String>,
    parent: Option<TaskId>,
    root: TaskId,
}

impl Seen {
    fn of(ctx: &Context) -> Self {
        let (tenant, names) = (ctx.header("tenant"), ctx.headers().map(|(name, _)| name.to_owned()));
        Self { tenant: tenant.map(str::to_owned), names: names.collect(), parent: ctx.parent_id(), root: ctx.root_id() }
    }
}

#[yadtq::task]
async fn leaf(ctx: Context) -> Seen {
    Seen::of(&ctx)
}

#[yadtq::task]
fn branch(ctx: Context) -> Seen {
    let runtime = tokio::runtime::Handle::current();
    let below =
        runtime.block_on(async { leaf.delay().await.expect("acknowledged").wait(WAIT).await.expect("a result") });
    assert_eq!(below.parent.as_ref(), Some(ctx.id()));
    assert_eq!(below.root, ctx.root_id());
    Seen::of(&ctx)
}

/// Fails, and then sends others: a blocking one, a delayed one, and one with a header of its own.
#[yadtq::task(retry_base = "10ms")]
async fn trunk(ctx: Context) -> Result<[Seen; 4], TaskError> {
    if ctx.attempt() == 1 {
        return Err(TaskError::new("not yet"));
    }
    let sent = [branch.call(), leaf.call().countdown(DELAY), leaf.call().header("tenant", "other").header("more", "1")];
    let mut seen = vec![Seen::of(&ctx)];
    for call in sent {
        seen.push(call.delay().await?.wait(WAIT).await?);
    }
    Ok(seen.try_into().expect("four"))
}

/// Fails for good until it is allowed.
#[yadtq::task]
async fn stubborn(ctx: Context, allowed: State<Arc<AtomicBool>>) -> Result<Seen, TaskError> {
    match allowed.load(Ordering::SeqCst) {
        true => Ok(Seen::of(&ctx)),
        false => Err(TaskError::fatal("not now")),
    }
}

async fn headers_go_with_a_task(client: &Client) {
    let allowed = Arc::new(AtomicBool::new(false));
    let worker = Worker::builder().client(client).register((leaf, branch, trunk, stubborn)).state(Arc::clone(&allowed));
    let worker = worker.start().await.expect("a worker");
    let handle = trunk.call().header("tenant", "acme").header("tenant", "acme & co").send(client).await;
    let handle = handle.expect("acknowledged");
    let id = handle.id().clone();
    let [own, blocking, delayed, other] = handle.wait(WAIT).await.expect("a result");
    let seen = |tenant: &str, names: &[&str], parent: Option<&TaskId>| Seen {
        tenant: Some(tenant.to_owned()),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        parent: parent.cloned(),
        root: id.clone(),
    };
    assert_eq!(own, seen("acme & co", &["tenant"], None), "after a retry");
    assert_eq!(blocking, seen("acme & co", &["tenant"], Some(&id)));
    assert_eq!(delayed, seen("acme & co", &["tenant"], Some(&id)), "after a delay");
    assert_eq!(other, seen("other", &["tenant", "more"], Some(&id)), "its own before those that it inherits");

    let handle = stubborn.call().header("tenant", "acme").send(client).await.expect("acknowledged");
    let id = handle.id().clone();
    let failed = handle.wait(WAIT).await;
    assert!(matches!(failed, Err(Error::TaskFailed { .. })), "{failed:?}");
    let letters = || client.admin().dead_letters().id(&id);
    let letter = until("the letter", async || letters().page().await.expect("read").letters.pop()).await;
    assert_eq!(letter.headers().collect::<Vec<_>>(), [("tenant", &b"acme"[..])]);
    allowed.store(true, Ordering::SeqCst);
    assert_eq!(letters().replay().await.expect("replayed").replayed, 1);
    let seen = client.handle::<Seen>(id.clone()).wait(WAIT).await.expect("a result");
    assert_eq!((seen.tenant.as_deref(), seen.root), (Some("acme"), id), "after a replay");
    worker.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_go_with_a_task_through_kafka() {
    headers_go_with_a_task(&Bench::new("headers").await.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_go_with_a_task_embedded() {
    headers_go_with_a_task(&Client::embedded()).await;
}

#[tokio::test]
async fn headers_and_names_that_could_forge_others_are_refused() {
    let client = Client::embedded();
    let refused = async |call: yadtq::Call<Seen>| call.send(&client).await.expect_err("refused").to_string();
    for (name, problem) in [
        ("", "has 1 to 256 bytes"),
        ("a\nb", "no control characters"),
        ("yadtq-parent-id", "names that begin with `yadtq-` are reserved"),
    ] {
        let error = refused(leaf.call().header(name, "x")).await;
        assert!(error.contains("header") && error.contains(problem), "{error}");
    }
    let error = refused(leaf.call().header("large", "x".repeat(8_192))).await;
    assert!(error.contains("at most 8192 bytes together"), "{error}");
    let id: TaskId = "a\nb".parse().expect("an id");
    for (field, call) in [
        ("id", leaf.call().id(id)),
        ("ordering_key", leaf.call().ordering_key("a\u{7}")),
        ("unique", leaf.call().unique("a\u{1b}[2J", WAIT)),
        ("task", yadtq::Call::named("a\r\nb", [0; 0])),
    ] {
        let error = refused(call).await;
        assert!(error.contains(field) && error.contains("control characters"), "{error}");
    }
}
