//! Every example runs, and prints what it should.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// Cargo builds the examples together with these tests, unless it builds only this test (`--test`).
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test's path");
    let directory = test.ancestors().nth(2).expect("the build directory").join("examples");
    let mut command = Command::new(directory.join(name));
    command.stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> String {
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
    let printed = output(example("quickstart"));
    assert!(printed.contains("add(1, 2) = 3"), "{printed}");
    assert!(printed.contains("cargo xtask services up"), "it prints what to do next: {printed}");
}

#[test]
fn errors() {
    let printed = output(example("errors"));
    for line in [
        "withdrawn, left: 70",
        "withdraw failed at attempt 1 with kind `error`: ada has 100, which is less than 300",
        "charge failed at attempt 1 with kind `error`: invalid digit found in string",
        "charge failed at attempt 1 with kind `card-declined`: card 4111 was declined",
        "divide panicked: attempt to divide by zero",
        "slow failed at attempt 1 with kind `timeout`: not done after 100ms",
    ] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
}

/// The body of an answer. The connection is closed after it.
fn http(address: &str, head: &str, body: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let more =
        format!("host: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
    write!(stream, "{head} HTTP/1.1\r\n{more}\r\n\r\n{body}").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

#[test]
fn service() {
    use std::io::{BufRead as _, BufReader};
    let mut command = example("service");
    command.env("YADTQ_KAFKA", "embedded").env("ADDRESS", "127.0.0.1:0").stdout(Stdio::piped());
    let mut service = Worker(command.spawn().expect("it starts"));
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().expect("piped")).read_line(&mut line).expect("it prints its address");
    let address = line.trim().strip_prefix("listening on ").expect("its address").to_owned();

    let ends_as = |order: &str, part: &str| {
        let (status, body) = http(&address, "POST /orders", order);
        assert_eq!(status, 202, "{body}");
        let id = body.split('"').nth(3).expect("an id").to_owned();
        let started = std::time::Instant::now();
        loop {
            let (status, body) = http(&address, &format!("GET /tasks/{id}"), "");
            assert_eq!(status, 200, "{body}");
            if body.contains(part) {
                return;
            }
            assert!(started.elapsed().as_secs() < 60, "`{part}` in {body}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    ends_as(r#"{"customer":"ada","cents":1250}"#, r#"{"status":"success","receipt":"ada paid 1250 cents"}"#);
    ends_as(r#"{"customer":"eve","cents":100001}"#, r#"{"status":"failure","error":"the bank declined 100001 cents"}"#);
    assert_eq!(http(&address, "GET /tasks/unknown", "").0, 404);
    assert_eq!(http(&address, &format!("GET /tasks/{}", "x".repeat(129)), "").0, 400, "no id");
}

#[test]
fn retries() {
    let printed = output(example("retries"));
    for line in [
        "attempt 2 of example.org, because: no route",
        "attempt 3 of example.org, because: too many requests",
        "<html>example.org</html>",
        "failed after 2 attempt(s): card 4111 was declined",
        "failed after 1 attempt(s): the bank does not answer",
    ] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
}

#[test]
fn delays() {
    let printed = output(example("delays"));
    for line in [
        "status: scheduled\nremember, Ada!",
        "order 17 left at attempt 1",
        "remind waits in default\nremind waits in default\nremember, Grace!",
        "no reminder for Eve: it was revoked",
    ] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
}

#[test]
fn context_state() {
    let printed = output(example("context_state"));
    assert!(printed.contains("ada has 60") && printed.contains("counted to 1000"), "{printed}");
    assert!(printed.contains("pages within the soft timeout"), "{printed}");
}

#[test]
fn blocking() {
    let printed = output(example("blocking"));
    assert!(printed.contains("async tasks go on"), "{printed}");
    assert!(printed.contains("the largest prime below a million is Some(999983)"), "{printed}");
    assert!(printed.contains("timeout"), "{printed}");
}

#[test]
fn headers() {
    let printed = output(example("headers"));
    assert_eq!(printed.trim_end(), "invoice 17 of acme, which began with another task");
}

#[test]
fn expiry() {
    let printed = output(example("expiry"));
    assert!(printed.contains("sent a code to ada"), "{printed}");
    assert!(printed.contains("no code for eve: it expired before it could run"), "{printed}");
}

#[test]
fn priority() {
    let printed = output(example("priority"));
    let order = |how: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(how));
        line.unwrap_or_else(|| panic!("{how} in {printed}")).trim().to_owned()
    };
    let (weighted, strict) = (order("by weights:"), order("strictly:"));
    for letter in ["H", "N", "L"] {
        assert_eq!((weighted.matches(letter).count(), strict.matches(letter).count()), (30, 30), "{printed}");
    }
    // The tasks that were sent last run first: strictly all of them, by weights most of them.
    let middle = |order: &str, letter: &str| order.match_indices(letter).nth(15).map(|(at, _)| at);
    for order in [&weighted, &strict] {
        assert!(middle(order, "H") < middle(order, "N") && middle(order, "N") < middle(order, "L"), "{printed}");
    }
    assert!(weighted.find('L') < weighted.rfind('H') && strict.find('L') > strict.rfind('H'), "{printed}");
}

#[test]
fn limits() {
    let printed = output(example("limits"));
    let took = printed.lines().find_map(|line| line.strip_prefix("23 pages took ")?.strip_suffix(" s"));
    let took: f64 = took.and_then(|took| took.parse().ok()).unwrap_or_else(|| panic!("{printed}"));
    assert!((1.4..20.0).contains(&took), "three at once, and the twentieth after that 2 s later: {printed}");
    assert_eq!(printed.matches("imported a file of ada").count(), 5, "{printed}");
    assert!(printed.contains("at most 2 imports at once"), "{printed}");
}

#[test]
fn revoke() {
    let printed = output(example("revoke"));
    assert!(!printed.contains("is out"), "{printed}");
    for who in ["the newsletter: task ", "the crawler: task "] {
        let line = printed.lines().find(|line| line.starts_with(who));
        assert!(line.is_some_and(|line| line.ends_with("was revoked: it was asked to end")), "{who} in {printed}");
    }
}

#[test]
fn progress() {
    let printed = output(example("progress"));
    let values = printed.lines().filter(|line| line.ends_with(" of 50 rows")).count();
    assert!((2..=50).contains(&values), "{printed}");
    assert!(printed.contains("rows.csv is imported"), "{printed}");
}

#[test]
fn unique() {
    let printed = output(example("unique"));
    for (line, count) in [
        ("writing the invoice of order 17", 1),
        ("made by the first: true, by the second: false", 1),
        ("invoice 17, invoice 17", 1),
        ("refreshed again: false", 1),
        ("refreshing /news", 2),
    ] {
        assert_eq!(printed.lines().filter(|printed| *printed == line).count(), count, "`{line}` in {printed}");
    }
}

#[test]
fn dead_letters() {
    let printed = output(example("dead_letters"));
    for line in [
        "(pay) failed after 1 attempt(s): arguments",
        "dead: arguments in queue default",
        "\"args\":[\"ada\",12.5]",
        "replayed 1",
        "ada gets 12.50 euros",
        "purged 0",
    ] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
}

#[test]
fn ordering() {
    let printed = output(example("ordering"));
    let of = |customer: &str| printed.lines().filter(|line| line.starts_with(customer)).collect::<Vec<_>>();
    assert_eq!(of("ada"), ["ada: 100", "ada: 200 fails, and is tried again in its place", "ada: 200", "ada: 300"]);
    assert_eq!(of("bob"), ["bob: 1000", "bob: 2000"]);
    assert!(printed.contains("refused: ") && printed.contains("`countdown`"), "{printed}");
}

#[test]
fn results() {
    let printed = output(example("results"));
    for line in [
        "report of month 1",
        "report of month 2, for an hour",
        "succeeded, and its result was not kept",
        "the cache is warm",
    ] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
}

#[test]
fn queue_control() {
    let printed = output(example("queue_control"));
    for line in [
        "mail is paused, and ada's waits",
        "purged 1 task",
        "was revoked: its queue was purged",
        "sent to eve",
        "(send_email) failed after 1 attempt(s): disabled: an operator has disabled `send_email`",
        "others run: 3",
    ] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
    assert!(!printed.contains("sent to ada") && !printed.contains("sent to bob"), "{printed}");
}

#[test]
fn periodic() {
    let printed = output(example("periodic"));
    let mut ticks: Vec<_> = printed.lines().filter(|line| line.ends_with("Z sweeps the floor")).collect();
    ticks.dedup();
    assert!(ticks.len() == 3 && ticks.iter().all(|line| line.starts_with("sweep@2")), "{printed}");
    assert!(
        printed.contains("nightly-report: 0 3 * * * runs report") && printed.contains("sweep: every 1s runs sweep"),
        "{printed}"
    );
}

/// A worker process, killed at the end.
struct Worker(Child);

impl Worker {
    fn start(namespace: &str) -> Self {
        Self(real(example("worker"), namespace).stdout(Stdio::null()).spawn().expect("it starts"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // This fails if the process has already ended.
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
    let printed = output(real(example("client"), &namespace));
    for line in ["add(1, 2) = 3", "greet(\"Ada\") = hello, Ada", "a thousand sums add up to 500500", " = 42"] {
        assert!(printed.contains(line), "`{line}` in {printed}");
    }
}

#[test]
fn python() {
    let namespace = format!("x-python-{}", std::process::id());
    let _worker = Worker::start(&namespace);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/producer.py");
    let mut python = Command::new(var("YADTQ_TEST_PYTHON"));
    python.arg(script);
    let printed = output(real(python, &namespace));
    assert!(printed.contains("status success result 3"), "{printed}");
}
