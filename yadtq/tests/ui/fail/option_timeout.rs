#[yadtq::task(timeout = "soon")]
async fn soon() {}

#[yadtq::task(timeout = "30")]
async fn no_unit() {}

#[yadtq::task(timeout = "0s")]
async fn zero() {}

#[yadtq::task(timeout = "")]
async fn empty() {}

fn main() {
    let _ = (soon.call(), no_unit.call(), zero.call(), empty.call());
}
