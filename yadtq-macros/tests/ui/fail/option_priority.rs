#[yadtq::task(priority = "urgent")]
async fn urgent() {}

#[yadtq::task(priority = high)]
async fn unquoted() {}

fn main() {
    let _ = (urgent.call(), unquoted.call());
}
