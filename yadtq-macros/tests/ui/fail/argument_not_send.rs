use std::rc::Rc;

#[yadtq::task]
fn blocking(a: i64, text: Rc<str>) -> usize {
    text.len() + usize::from(a > 0)
}

#[yadtq::task]
async fn asynchronous(text: Rc<str>) -> usize {
    text.len()
}

fn main() {}
