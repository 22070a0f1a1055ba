#[yadtq::task(queue = "mail", timeout = "1s", queue = "post")]
async fn send(to: String) {
    drop(to);
}

fn main() {
    let _ = send.call(String::new());
}
