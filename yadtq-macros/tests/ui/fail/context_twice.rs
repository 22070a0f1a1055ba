use yadtq::Context;

#[yadtq::task]
async fn add(one: Context, two: yadtq::Context, a: i64) -> i64 {
    a + i64::from(one.attempt() + two.attempt())
}

fn main() {
    let _ = add.call(1);
}
