use std::cell::Cell;

mod other {
    pub struct State<T>(pub T);
}

#[yadtq::task]
async fn not_ours(state: other::State<u32>) {
    let _ = state.0;
}

#[yadtq::task]
async fn not_shareable(state: yadtq::State<Cell<u32>>) {
    state.set(1);
}

fn main() {}
