#[yadtq::task]
async fn store<T: serde::Serialize>(value: T) -> Vec<T> {
    vec![value]
}

fn main() {
    // Code that uses the task is not blamed.
    let _ = store.call(1);
}
