#[yadtq::task]
async fn count<'a>(text: Text<'a>) -> usize {
    text.0.len()
}

struct Text<'a>(&'a str);

fn main() {
    let _ = count.call(Text("one"));
}
