#[yadtq::task]
fn numbers() -> Result<impl Iterator<Item = i64>, String> {
    Ok([1, 2].into_iter())
}

#[yadtq::task]
async fn opaque_error() -> Result<i64, impl std::error::Error> {
    "1".parse::<i64>()
}

fn main() {
    let _ = numbers.call();
    let _ = numbers.run();
}
