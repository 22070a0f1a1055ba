use yadtq::State;

#[yadtq::task]
async fn after_what_is_sent(name: String, pool: State<u32>) {}

#[yadtq::task]
async fn borrowed(pool: &State<u32>) {}

fn main() {}
