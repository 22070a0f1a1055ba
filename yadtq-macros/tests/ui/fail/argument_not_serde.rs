use serde::{Deserialize, Serialize};

struct Neither;

#[derive(Serialize)]
struct Written;

#[derive(Deserialize)]
struct Read;

#[yadtq::task]
async fn neither(a: i64, b: Neither) -> i64 {
    drop(b);
    a
}

#[yadtq::task]
async fn written(all: Vec<Written>) -> usize {
    all.len()
}

#[yadtq::task]
fn read(one: Option<Read>) -> bool {
    one.is_some()
}

fn main() {
    let _ = neither.call(1, Neither);
}
