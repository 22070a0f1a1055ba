#[yadtq::task]
async fn greet(name: impl Into<String>, all: Vec<impl ToString>) -> String {
    name.into() + &all.len().to_string()
}

fn main() {
    let _ = greet.call("one", vec![1]);
}
