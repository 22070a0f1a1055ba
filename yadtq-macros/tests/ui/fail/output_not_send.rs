use std::rc::Rc;

#[yadtq::task]
fn text() -> Rc<str> {
    "one".into()
}

fn main() {}
