#[derive(Debug)]
struct MailError;

#[yadtq::task]
async fn send(to: String) -> Result<usize, MailError> {
    Ok(to.len())
}

type Alias<T> = Result<T, (u8, String)>;

#[yadtq::task]
fn alias() -> Alias<i64> {
    Ok(1)
}

fn main() {
    let _ = send.call(String::new());
}
