//! What `#[yadtq::task]` makes from a function: its options, its methods, and its runs on a worker in memory, where arguments
//! and outcomes pass through the same JSON as with real servers.

use std::{error::Error as StdError, fmt, io, time::Duration};

use serde::{Deserialize, Serialize};
use yadtq::{Call, Client, Context, Error, ErrorKind, RunningWorker, State, Task, TaskError, Worker};

/// Adds.
#[yadtq::task(name = "math.add", queue = "math", timeout = "1m 30s")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[yadtq::task]
fn shout(r#type: String, times: Option<usize>) -> String {
    r#type.to_uppercase().repeat(times.unwrap_or(1))
}

#[yadtq::task]
async fn attempt(ctx: Context, plus: u32) -> Result<u32, yadtq::MissingState> {
    Ok(ctx.attempt() + plus + ctx.state::<u32>()?)
}

#[yadtq::task]
async fn with_states(ctx: Context, base: State<u32>, _: State<String>, plus: u32) -> u32 {
    ctx.attempt() + *base + plus
}

#[yadtq::task]
fn blocking_with_state(prefix: State<String>, name: String) -> String {
    format!("{}{name}", *prefix)
}

/// Fails if there is no state of this type, as the error's source.
#[yadtq::task]
async fn without_state(ctx: Context) -> anyhow::Result<u8> {
    use anyhow::Context as _;
    Ok(*ctx.state::<u8>().context("no settings")?)
}

#[yadtq::task]
fn name_of(ctx: Context) -> String {
    format!("{} in {}", ctx.task(), ctx.queue())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i64,
    y: i64,
}

#[yadtq::task]
async fn mirror(mut point: Point, shift: (i64, i64)) -> Point {
    point.x += shift.0;
    point.y += shift.1;
    Point { x: point.y, y: point.x }
}

#[yadtq::task]
async fn nothing() {}

#[yadtq::task]
async fn aliased(number: String) -> io::Result<i64> {
    number.parse().map_err(io::Error::other)
}

/// Errors, of each type that a task may return.
#[allow(unreachable_pub, reason = "a user's module may be public")]
mod fail {
    use super::*;

    #[derive(Debug)]
    pub struct Outer(pub std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no number")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[yadtq::task]
    pub async fn own_type(text: String) -> Result<i64, Outer> {
        text.parse().map_err(Outer)
    }

    #[yadtq::task]
    pub fn any(text: String) -> anyhow::Result<i64> {
        use anyhow::Context as _;
        text.parse().context("no number")
    }

    #[yadtq::task]
    pub async fn boxed(text: String) -> Result<i64, Box<dyn StdError>> {
        Ok(text.parse().map_err(Outer)?)
    }

    #[yadtq::task]
    pub fn boxed_send(text: String) -> Result<i64, Box<dyn StdError + Send + Sync>> {
        Ok(text.parse().map_err(Outer)?)
    }

    #[yadtq::task]
    pub async fn text(text: String) -> Result<i64, String> {
        Err(format!("no number: {text}"))
    }

    #[yadtq::task]
    pub fn static_text(_text: String) -> Result<i64, &'static str> {
        Err("no number at all")
    }

    #[yadtq::task]
    pub async fn task_error(text: String) -> Result<i64, TaskError> {
        Err(TaskError::new(format!("no number: {text}")).kind("not-a-number"))
    }
}

async fn start() -> (Client, RunningWorker) {
    let client = Client::embedded();
    let worker = Worker::builder()
        .client(&client)
        .state(10_u32)
        .state("Dr. ".to_owned())
        .register((add, shout, attempt, name_of, mirror, nothing, aliased))
        .register((with_states, blocking_with_state, without_state))
        .register(yadtq::tasks![fail::own_type, fail::any, fail::boxed, fail::boxed_send])
        .register((fail::text, (fail::static_text, fail::task_error)))
        .retry(yadtq::Retry::never());
    let worker = worker.build().expect("names differ").start().await.expect("a worker in memory starts");
    (client, worker)
}

/// Sends a call, and waits for its outcome.
async fn outcome<T: serde::de::DeserializeOwned>(client: &Client, call: Call<T>) -> Result<T, Error> {
    call.send(client).await?.wait(Duration::from_secs(10)).await
}

/// The kind and message of the error with which a call ends.
async fn failure<T: serde::de::DeserializeOwned + fmt::Debug>(client: &Client, call: Call<T>) -> (ErrorKind, String) {
    match outcome(client, call).await {
        Err(Error::TaskFailed { kind, message, .. }) => (kind, message),
        other => panic!("not a failure of the task: {other:?}"),
    }
}

#[test]
fn options_are_in_the_definition() {
    let definition = add.definition();
    assert_eq!(definition.name(), "math.add");
    assert_eq!(definition.queue(), Some("math"));
    assert_eq!(definition.timeout(), Some(Duration::from_secs(90)));

    let definition = shout.definition();
    assert_eq!(definition.name(), "shout");
    assert_eq!(definition.queue(), None);
    assert_eq!(definition.timeout(), None);
}

#[tokio::test]
async fn run_is_the_function() {
    assert_eq!(add.run(1, 2).await, 3);
    assert_eq!(shout.run("a".to_owned(), None), "A");
    assert_eq!(attempt.run(Context::for_test().with_state(1_u32), 1).await.unwrap(), 3);
    assert!(attempt.run(Context::for_test(), 1).await.unwrap_err().to_string().contains("u32"));
    assert_eq!(name_of.run(Context::for_test()), "test in default");
    let text = || State::new("Dr. ".to_owned());
    assert_eq!(with_states.run(Context::for_test(), State::new(10), text(), 1).await, 12);
    assert_eq!(blocking_with_state.run(text(), "Who".to_owned()), "Dr. Who");
    nothing.run().await;
    assert_eq!(aliased.run("7".to_owned()).await.unwrap(), 7);
}

#[tokio::test]
async fn calls_reach_the_function() {
    let (client, worker) = start().await;
    assert_eq!(outcome(&client, add.call(1, 2)).await.unwrap(), 3);
    assert_eq!(outcome(&client, shout.call("ab".to_owned(), Some(2))).await.unwrap(), "ABAB");
    assert_eq!(outcome(&client, attempt.call(1)).await.unwrap(), 12);
    assert_eq!(outcome(&client, name_of.call()).await.unwrap(), "name_of in default");
    assert_eq!(outcome(&client, mirror.call(Point { x: 1, y: 2 }, (10, 20))).await.unwrap(), Point { x: 22, y: 11 });
    outcome(&client, nothing.call()).await.unwrap();
    assert_eq!(outcome(&client, with_states.call(5)).await.unwrap(), 16);
    let handle = blocking_with_state.call("Who".to_owned()).send(&client).await.unwrap();
    assert_eq!(blocking_with_state.handle(&client, handle.id().clone()).await.unwrap(), "Dr. Who");
    assert_eq!(outcome(&client, aliased.call("7".to_owned())).await.unwrap(), 7);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn arguments_go_by_position_or_by_name() {
    let (client, worker) = start().await;
    let shouts = |args: serde_json::Value| outcome(&client, Call::<String>::named("shout", args));
    assert_eq!(shouts(serde_json::json!(["a", 2])).await.unwrap(), "AA");
    assert_eq!(shouts(serde_json::json!(["a"])).await.unwrap(), "A");
    assert_eq!(shouts(serde_json::json!({ "times": 3, "type": "a" })).await.unwrap(), "AAA");
    assert_eq!(shouts(serde_json::json!({ "type": "a" })).await.unwrap(), "A");

    let fails = |args: serde_json::Value| failure(&client, Call::<String>::named("shout", args));
    let arguments = |message: &str| (ErrorKind::Arguments, message.to_owned());
    assert_eq!(fails(serde_json::json!([])).await, arguments("argument `type` is missing"));
    assert_eq!(fails(serde_json::json!(["a", 1, 2])).await, arguments("3 arguments for 2 parameters"));
    let unknown = arguments("no parameter is named `loud`; the parameters are: type, times");
    assert_eq!(fails(serde_json::json!({ "type": "a", "loud": true })).await, unknown);
    // The context is not a parameter that callers can send.
    let by_name = Call::<u32>::named("attempt", serde_json::json!({ "ctx": 1, "plus": 1 }));
    assert_eq!(failure(&client, by_name).await, arguments("no parameter is named `ctx`; the parameters are: plus"));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn missing_state_is_not_retried() {
    let client = Client::embedded();
    let worker = Worker::builder().client(&client).register(without_state).start().await.unwrap();
    let error = outcome(&client, without_state.call()).await.unwrap_err();
    assert!(matches!(&error, Error::TaskFailed { attempts: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("no state of type u8"), "{error}");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn each_error_type_keeps_its_text() {
    let (client, worker) = start().await;
    let x = || "x".to_owned();
    let with_source = (ErrorKind::Error, "no number: invalid digit found in string".to_owned());
    assert_eq!(failure(&client, fail::own_type.call(x())).await, with_source);
    assert_eq!(failure(&client, fail::any.call(x())).await, with_source);
    assert_eq!(failure(&client, fail::boxed.call(x())).await, with_source);
    assert_eq!(failure(&client, fail::boxed_send.call(x())).await, with_source);
    assert_eq!(failure(&client, fail::text.call(x())).await, (ErrorKind::Error, "no number: x".to_owned()));
    assert_eq!(failure(&client, fail::static_text.call(x())).await, (ErrorKind::Error, "no number at all".to_owned()));
    let kind = ErrorKind::Custom("not-a-number".to_owned());
    assert_eq!(failure(&client, fail::task_error.call(x())).await, (kind, "no number: x".to_owned()));
    let invalid = (ErrorKind::Error, "invalid digit found in string".to_owned());
    assert_eq!(failure(&client, aliased.call(x())).await, invalid);
    worker.stop().await.unwrap();
}
