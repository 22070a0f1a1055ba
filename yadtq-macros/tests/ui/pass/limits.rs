//! Limits of starts and of what runs at once.

use yadtq::{Context, Rate, Task};

#[yadtq::task(rate_limit = "100/m", rate_burst = 20, max_running = 5, limit_key = "user")]
async fn send(_ctx: Context, text: String, user: u64) -> usize {
    text.len() + usize::try_from(user).unwrap()
}

#[yadtq::task(rate_limit = " 5 / h ")]
fn hourly() {}

#[yadtq::task(max_running = 1, limit_key = "type")]
async fn raw(r#type: String) {
    drop(r#type);
}

fn main() {
    let definition = send.definition();
    assert_eq!(definition.rate_limit(), Some(Rate::per_minute(100).burst(20)));
    assert_eq!((definition.max_running(), definition.limit_key()), (Some(5), Some("user")));
    assert_eq!(hourly.definition().rate_limit(), Some(Rate::per_hour(5)));
    assert_eq!((hourly.definition().max_running(), raw.definition().limit_key()), (None, Some("type")));
}
