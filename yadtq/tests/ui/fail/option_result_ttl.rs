#[yadtq::task(result_ttl = "for ever")]
async fn for_ever() {}

#[yadtq::task(result_ttl = "2years")]
async fn too_long() {}

fn main() {
    let _ = (for_ever.call(), too_long.call());
}
