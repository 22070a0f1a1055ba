use yadtq::Context;

#[yadtq::task]
async fn add(a: i64, ctx: Context) -> i64 {
    a + i64::from(ctx.attempt())
}

fn main() {
    let _ = add.call(1);
}
