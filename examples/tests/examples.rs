//! Every example runs, and says what it should.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// The examples are built with these tests, next to them, unless cargo is told to build only this one (`--test`).
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test's path");
    let directory = test.ancestors().nth(2).expect("the build directory").join("examples");
    let mut command = Command::new(directory.join(name));
    command.stdin(Stdio::null());
    command
}

fn said(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `cargo xtask test`"))
}

#[test]
fn quickstart() {
    let said = said(example("quickstart"));
    assert!(said.contains("add(1, 2) = 3"), "{said}");
    assert!(said.contains("cargo xtask services up"), "it says what to do next: {said}");
}

#[test]
fn errors() {
    let said = said(example("errors"));
    for line in [
        "withdrawn, left: 70",
        "withdraw failed at attempt 1 with kind `error`: ada has 100, which is less than 300",
        "charge failed at attempt 1 with kind `error`: invalid digit found in string",
        "charge failed at attempt 1 with kind `card-declined`: card 4111 was declined",
        "divide panicked: attempt to divide by zero",
        "slow failed at attempt 1 with kind `timeout`: not done after 100ms",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

#[test]
fn retries() {
    let said = said(example("retries"));
    for line in [
        "attempt 2 of example.org, because: no route",
        "attempt 3 of example.org, because: too many requests",
        "<html>example.org</html>",
        "failed after 2 attempt(s): card 4111 was declined",
        "failed after 1 attempt(s): the bank does not answer",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

#[test]
fn delays() {
    let said = said(example("delays"));
    for line in [
        "status: scheduled\nremember, Ada!",
        "order 17 left at attempt 1",
        "remind waits in default\nremind waits in default\nremember, Grace!",
        "no reminder for Eve: it was asked to end",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

#[test]
fn context_state() {
    let said = said(example("context_state"));
    assert!(said.contains("ada has 60") && said.contains("counted to 1000"), "{said}");
}

#[test]
fn blocking() {
    let said = said(example("blocking"));
    assert!(said.contains("async tasks go on"), "{said}");
    assert!(said.contains("the largest prime below a million is Some(999983)"), "{said}");
    assert!(said.contains("timeout"), "{said}");
}

#[test]
fn expiry() {
    let said = said(example("expiry"));
    assert!(said.contains("sent a code to ada"), "{said}");
    assert!(said.contains("no code for eve: it expired before it could run"), "{said}");
}

#[test]
fn priority() {
    let said = said(example("priority"));
    let order = |how: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(how));
        line.unwrap_or_else(|| panic!("{how} in {said}")).trim().to_owned()
    };
    let (weighted, strict) = (order("by weights:"), order("strictly:"));
    for level in ["H", "N", "L"] {
        assert_eq!((weighted.matches(level).count(), strict.matches(level).count()), (30, 30), "{said}");
    }
    // What was sent last is done first: strictly all of it, by weights most of it.
    let middle = |order: &str, level: &str| order.match_indices(level).nth(15).map(|(at, _)| at);
    for order in [&weighted, &strict] {
        assert!(middle(order, "H") < middle(order, "N") && middle(order, "N") < middle(order, "L"), "{said}");
    }
    assert!(weighted.find('L') < weighted.rfind('H') && strict.find('L') > strict.rfind('H'), "{said}");
}

#[test]
fn limits() {
    let said = said(example("limits"));
    let took = said.lines().find_map(|line| line.strip_prefix("23 pages took ")?.strip_suffix(" s"));
    let took: f64 = took.and_then(|took| took.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!((1.4..20.0).contains(&took), "three at once, and the twentieth after that 2 s later: {said}");
    assert_eq!(said.matches("imported a file of ada").count(), 5, "{said}");
    assert!(said.contains("at most 2 imports at once"), "{said}");
}

#[test]
fn revoke() {
    let said = said(example("revoke"));
    assert!(!said.contains("is out"), "{said}");
    for who in ["the newsletter: task ", "the crawler: task "] {
        let line = said.lines().find(|line| line.starts_with(who));
        assert!(line.is_some_and(|line| line.ends_with("was revoked: it was asked to end")), "{who} in {said}");
    }
}

#[test]
fn progress() {
    let said = said(example("progress"));
    let told = said.lines().filter(|line| line.ends_with(" of 50 rows")).count();
    assert!((2..=50).contains(&told), "{said}");
    assert!(said.contains("rows.csv is imported"), "{said}");
}

#[test]
fn unique() {
    let said = said(example("unique"));
    for (line, count) in [
        ("writing the invoice of order 17", 1),
        ("made by the first: true, by the second: false", 1),
        ("invoice 17, invoice 17", 1),
        ("refreshed again: false", 1),
        ("refreshing /news", 2),
    ] {
        assert_eq!(said.lines().filter(|said| *said == line).count(), count, "`{line}` in {said}");
    }
}

#[test]
fn dead_letters() {
    let said = said(example("dead_letters"));
    for line in [
        "it failed: task failed after 1 attempt(s): arguments",
        "dead: arguments in queue default",
        "\"args\":[\"ada\",12.5]",
        "replayed 1",
        "ada gets 12.50 euros",
        "purged 0",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

#[test]
fn ordering() {
    let said = said(example("ordering"));
    let of = |customer: &str| said.lines().filter(|line| line.starts_with(customer)).collect::<Vec<_>>();
    assert_eq!(of("ada"), ["ada: 100", "ada: 200 fails, and is tried again in its place", "ada: 200", "ada: 300"]);
    assert_eq!(of("bob"), ["bob: 1000", "bob: 2000"]);
    assert!(said.contains("refused: ") && said.contains("`countdown`"), "{said}");
}

#[test]
fn results() {
    let said = said(example("results"));
    for line in [
        "report of month 1",
        "report of month 2, for an hour",
        "succeeded, and its result was not kept",
        "the cache is warm",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

#[test]
fn queue_control() {
    let said = said(example("queue_control"));
    for line in [
        "mail is paused, and ada's waits",
        "purged 1 task",
        "was revoked: its queue was purged",
        "sent to eve",
        "task failed after 1 attempt(s): disabled: an operator has disabled `send_email`",
        "others run: 3",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
    assert!(!said.contains("sent to ada") && !said.contains("sent to bob"), "{said}");
}

#[test]
fn periodic() {
    let said = said(example("periodic"));
    let mut ticks: Vec<_> = said.lines().filter(|line| line.ends_with("Z sweeps the floor")).collect();
    ticks.dedup();
    assert!(ticks.len() == 3 && ticks.iter().all(|line| line.starts_with("sweep@2")), "{said}");
    assert!(
        said.contains("nightly-report: 0 3 * * * runs report") && said.contains("sweep: every 1s runs sweep"),
        "{said}"
    );
}

/// A worker process, told to stop at the end.
struct Worker(Child);

impl Worker {
    fn start(namespace: &str) -> Self {
        Self(real(example("worker"), namespace).stdout(Stdio::null()).spawn().expect("it starts"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Already ended if the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn real(mut command: Command, namespace: &str) -> Command {
    command.env("YADTQ_KAFKA", var("YADTQ_KAFKA")).env("YADTQ_REDIS", var("YADTQ_REDIS"));
    command.env("YADTQ_NAMESPACE", namespace);
    command
}

#[test]
fn client_and_worker() {
    let namespace = format!("x-client-{}", std::process::id());
    let _worker = Worker::start(&namespace);
    let said = said(real(example("client"), &namespace));
    for line in ["add(1, 2) = 3", "greet(\"Ada\") = hello, Ada", "a thousand sums add up to 500500", " = 42"] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

#[test]
fn python() {
    let namespace = format!("x-python-{}", std::process::id());
    let _worker = Worker::start(&namespace);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/producer.py");
    let mut python = Command::new(var("YADTQ_TEST_PYTHON"));
    python.arg(script);
    let said = said(real(python, &namespace));
    assert!(said.contains("status success result 3"), "{said}");
}
