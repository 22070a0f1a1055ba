use std::{cell::RefCell, rc::Rc};

#[yadtq::task]
async fn count(n: u32) -> u32 {
    let total = Rc::new(RefCell::new(n));
    std::future::ready(()).await;
    *total.borrow_mut() += 1;
    total.take()
}

fn main() {
    let _ = count.call(1);
}
