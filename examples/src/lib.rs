//! The tasks that the `client` and `worker` examples share: in a real system this is a crate that both services use.

/// Adds two numbers.
#[yadtq::task]
pub async fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// Greets somebody; it has a queue of its own.
#[yadtq::task(queue = "mail", timeout = "5s")]
pub async fn greet(name: String) -> String {
    format!("hello, {name}")
}
