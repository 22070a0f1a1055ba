//! A leading `Context`, under each of its paths.

use yadtq::Context;

#[yadtq::task]
async fn plain(ctx: Context, a: i64) -> i64 {
    a + i64::from(ctx.attempt())
}

#[yadtq::task]
fn qualified(_: yadtq::Context) {}

#[yadtq::task]
async fn alone(mut ctx: ::yadtq::Context) {
    ctx = ctx.clone();
    ctx.cancelled().await;
}

mod inner {
    pub use yadtq::Context as Renamed;

    pub mod prelude {
        pub use yadtq::Context;
    }
}

#[yadtq::task]
async fn reexported(_ctx: inner::prelude::Context) {}

fn main() {
    let _ = plain.call(1);
    let _ = plain.run(inner::Renamed::for_test(), 1);
    let _ = qualified.call();
    let _ = alone.call();
    let _ = reexported.call();
}
