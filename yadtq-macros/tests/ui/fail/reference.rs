use std::path::Path;

use yadtq::Context;

#[yadtq::task]
async fn text(text: &str) -> usize {
    text.len()
}

#[yadtq::task]
fn file(path: &Path, parts: &[u8], count: &'static mut i64) -> usize {
    path.components().count() + parts.len() + usize::from(*count > 0)
}

#[yadtq::task]
async fn nested(texts: Vec<(i64, &str)>) -> usize {
    texts.len()
}

#[yadtq::task]
async fn context(ctx: &Context) -> u32 {
    ctx.attempt()
}

fn main() {
    let _ = text.call("one");
    let _ = nested.call(vec![(1, "one")]);
}
