#[yadtq::task(queue, timeout =, name("send"),, crate)]
async fn send(to: String) {
    drop(to);
}

fn main() {
    let _ = send.call(String::new());
}
