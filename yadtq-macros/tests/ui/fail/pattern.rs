#[yadtq::task]
async fn distance((x, y): (f64, f64), _: i64, ref name: String, all @ _: i64) -> f64 {
    x + y + name.len() as f64 + all as f64
}

fn main() {
    let _ = distance.call((1.0, 2.0), 3, String::new(), 4);
}
