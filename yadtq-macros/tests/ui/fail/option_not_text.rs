const MAIL: &str = "mail";

#[yadtq::task(queue = MAIL, timeout = 30, name = b"send", crate = "yadtq")]
async fn send(to: String) {
    drop((to, MAIL));
}

fn main() {
    let _ = send.call(String::new());
}
