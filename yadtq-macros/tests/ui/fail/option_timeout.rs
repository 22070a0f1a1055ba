#[yadtq::task(timeout = "soon")]
async fn soon() {}

#[yadtq::task(timeout = "30")]
async fn no_unit() {}

#[yadtq::task(timeout = "0s")]
async fn zero() {}

#[yadtq::task(timeout = "")]
async fn empty() {}

#[yadtq::task(timeout = "30s", soft_timeout = "30s")]
async fn too_soft() {}

fn main() {
    let _ = (soon.call(), no_unit.call(), zero.call(), empty.call(), too_soft.call());
}
