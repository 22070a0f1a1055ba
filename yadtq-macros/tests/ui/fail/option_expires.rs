#[yadtq::task(expires = "tomorrow")]
async fn tomorrow() {}

#[yadtq::task(expires = "0s")]
async fn at_once() {}

fn main() {
    let _ = (tomorrow.call(), at_once.call());
}
