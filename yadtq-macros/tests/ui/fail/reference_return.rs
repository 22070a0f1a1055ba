#[yadtq::task]
async fn name() -> &'static str {
    "one"
}

#[yadtq::task]
async fn names() -> Result<Vec<&'static str>, &'static str> {
    Ok(vec!["one"])
}

fn main() {
    let _ = name.call();
}
