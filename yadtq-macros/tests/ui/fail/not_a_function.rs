#[yadtq::task]
struct Mail {
    to: String,
}

#[yadtq::task]
const LIMIT: i64 = 1;

fn main() {
    // The item is still there.
    let _ = (Mail { to: String::new() }, LIMIT);
}
