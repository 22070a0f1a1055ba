#[yadtq::task(result_ttl = "forever")]
async fn forever() {}

#[yadtq::task(result_ttl = "2years")]
async fn too_long() {}

fn main() {
    let _ = (forever.call(), too_long.call());
}
