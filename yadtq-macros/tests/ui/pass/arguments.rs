//! Parameters of any name and shape that has a name.
#![deny(warnings)]

use std::borrow::Cow;

use yadtq::Context;

#[yadtq::task]
async fn keyword(r#type: String, r#async: bool) -> String {
    if r#async { r#type } else { String::new() }
}

#[yadtq::task]
fn mutable(mut total: i64, numbers: Vec<i64>) -> i64 {
    for number in numbers {
        total += number;
    }
    total
}

// Names that the generated code could have used.
#[yadtq::task]
async fn clashing(ctx: Context, context: i64, args: i64, self_: i64, body: i64, call: i64, task: i64, f: i64) -> i64 {
    let _ = ctx.attempt();
    context + args + self_ + body + call + task + f
}

#[yadtq::task]
async fn itself(itself: i64) -> i64 {
    itself
}

#[yadtq::task]
fn r#match(r#match: i64) -> i64 {
    r#match
}

#[yadtq::task]
async fn optional(a: i64, b: Option<i64>, _unused: u8) -> i64 {
    a + b.unwrap_or_default()
}

#[yadtq::task]
fn borrowed_or_owned(text: Cow<'_, str>, fixed: Cow<'static, str>) -> usize {
    text.len() + fixed.len()
}

#[yadtq::task]
fn annotated(#[allow(unused_variables)] a: i64) {}

// Tasks named as their own methods, and as what the generated code calls.
#[yadtq::task]
async fn call(delay: i64) -> i64 {
    delay
}

#[yadtq::task]
async fn delay(run: i64) -> i64 {
    run
}

#[yadtq::task]
fn run(new: i64) -> i64 {
    new
}

#[yadtq::task]
fn args(a: i64) -> i64 {
    a
}

#[yadtq::task]
fn context(a: i64) -> i64 {
    a
}

#[yadtq::task]
fn definition() {}

#[yadtq::task]
fn new() -> i64 {
    1
}

// Parameters named as other tasks.
#[yadtq::task]
async fn others(new: i64, definition: i64, mut itself: i64, ctx: Option<Vec<i64>>) -> i64 {
    itself += new + definition;
    itself + ctx.map_or(0, |numbers| numbers.into_iter().sum())
}

// Tasks made by a macro.
macro_rules! make {
    ($name:ident, $ty:ty) => {
        #[yadtq::task]
        async fn $name(ctx: yadtq::Context, a: $ty, $name: $ty) -> Option<$ty> {
            ctx.cancelled().await;
            a.checked_add($name)
        }
    };
}

make!(add_small, u8);
make!(add_large, u128);

fn main() {
    let _ = keyword.call("x".to_owned(), true);
    let _ = mutable.run(1, vec![2]);
    let _ = clashing.call(1, 2, 3, 4, 5, 6, 7);
    let _ = itself.call(1);
    let _ = r#match.run(1);
    let _ = optional.call(1, None, 0);
    let _ = borrowed_or_owned.call("a".into(), "b".into());
    annotated.run(1);
    let _ = (call.call(1), call.run(1), delay.call(1), run.call(1), args.call(1), context.call(1));
    let _ = (definition.call(), new.call(), others.call(1, 2, 3, None));
    let _ = (add_small.call(1, 2), add_large.call(1, 2));
}
