use std::fmt;

#[derive(serde::Serialize, serde::Deserialize)]
struct Context {
    user: String,
}

#[yadtq::task]
async fn greet(context: Context, times: u8) -> Result<String, fmt::Error> {
    Ok(context.user.repeat(times.into()))
}

fn main() {
    let _ = greet.call(1);
}
