#[yadtq::task(queue = "Mail")]
async fn upper() {}

#[yadtq::task(queue = "-mail")]
async fn dash() {}

#[yadtq::task(queue = "")]
async fn empty() {}

#[yadtq::task(queue = "dead")]
async fn reserved() {}

fn main() {
    let _ = (upper.call(), dash.call(), empty.call(), reserved.call());
}
