//! Every option.

mod vendored {
    pub use yadtq as queue;
}

#[yadtq::task(name = "math.add", queue = "math-2", timeout = "1m 30s")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[yadtq::task()]
async fn none() {}

#[yadtq::task(unique = "1h")]
async fn once() {}

#[yadtq::task(timeout = "500ms",)]
fn trailing_comma() {}

#[yadtq::task(crate = vendored::queue, name = r"raw")]
async fn relative_path(ctx: vendored::queue::Context) -> Result<u32, std::fmt::Error> {
    Ok(ctx.attempt())
}

#[yadtq::task(priority = "low", crate = vendored::queue)]
async fn low() {}

#[yadtq::task(crate = crate::vendored::queue)]
fn absolute_path() {}

fn main() {
    use yadtq::Task as _;

    assert_eq!(add.definition().name(), "math.add");
    assert_eq!(none.definition().name(), "none");
    assert_eq!(low.definition().priority(), yadtq::Priority::Low);
    assert_eq!(none.definition().priority(), yadtq::Priority::Normal);
    assert_eq!(relative_path.definition().name(), "raw");
    assert_eq!(once.definition().unique(), Some(std::time::Duration::from_secs(3_600)));
    trailing_comma.run();
    absolute_path.run();
}
