//! All mistakes are reported at once.

#[yadtq::task(queue = "Mail", retries = 3)]
async fn send<T>(to: &str, (a, b): (T, T)) -> impl Send {
    let _ = (to, a, b);
}

fn main() {}
