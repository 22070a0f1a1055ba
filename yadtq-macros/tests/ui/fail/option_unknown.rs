#[yadtq::task(retries = 3, "mail", queue = "mail")]
async fn send(to: String) {
    drop(to);
}

fn main() {
    let _ = send.call(String::new());
}
