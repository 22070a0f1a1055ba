#[yadtq::task(unique = "always")]
async fn always() {}

#[yadtq::task(unique = "999ms")]
async fn hardly() {}

#[yadtq::task(unique = "400d")]
async fn for_too_long() {}

#[yadtq::task(unique)]
async fn how_long() {}

fn main() {
    let _ = (always.call(), hardly.call(), for_too_long.call(), how_long.call());
}
