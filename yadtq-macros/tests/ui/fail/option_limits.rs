//! Limits that make no sense.

#[yadtq::task(rate_limit = "0/s")]
async fn never() {}

#[yadtq::task(rate_limit = "10")]
async fn no_unit() {}

#[yadtq::task(rate_limit = "10/d")]
async fn daily() {}

#[yadtq::task(rate_limit = 10)]
async fn number() {}

#[yadtq::task(rate_limit = "10001/s")]
async fn too_often() {}

#[yadtq::task(rate_limit = "36000001/h")]
async fn too_often_an_hour() {}

#[yadtq::task(rate_limit = "10/s", rate_burst = 0)]
async fn no_burst() {}

#[yadtq::task(rate_burst = 5)]
async fn burst_of_nothing() {}

#[yadtq::task(max_running = 0)]
async fn none() {}

#[yadtq::task(max_running = "5")]
async fn text() {}

#[yadtq::task(max_running = 5, limit_key = "user")]
async fn unknown_key(name: String) {
    drop(name);
}

#[yadtq::task(max_running = 5, limit_key = "ctx")]
async fn context_key(_ctx: yadtq::Context) {}

#[yadtq::task(limit_key = "user")]
async fn key_of_nothing(user: u64) {
    let _ = user;
}

fn main() {
    drop(unknown_key.call(String::new()));
}
