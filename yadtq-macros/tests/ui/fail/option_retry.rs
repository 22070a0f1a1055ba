//! Policies that make no sense.

#[yadtq::task(max_retries = 1001)]
async fn forever() {}

#[yadtq::task(max_retries = "5")]
async fn text() {}

#[yadtq::task(max_retries = -1)]
async fn negative() {}

#[yadtq::task(retry_base = "0s")]
async fn at_once() {}

#[yadtq::task(retry_base = "2s", retry_cap = "1s")]
async fn contradictory() {}

#[yadtq::task(retry_if = "is_transient")]
async fn quoted() -> Result<(), String> {
    Ok(())
}

fn by_value(_: String) -> bool {
    true
}

#[yadtq::task(retry_if = by_value)]
async fn wrong_function() -> Result<(), String> {
    Ok(())
}

fn is_transient(_: &String) -> bool {
    true
}

#[yadtq::task(retry_if = is_transient)]
async fn never_fails() -> u8 {
    1
}

fn main() {}
