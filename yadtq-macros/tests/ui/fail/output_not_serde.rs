use serde::Serialize;

struct Neither;

#[derive(Serialize)]
struct Written;

#[yadtq::task]
async fn value() -> Neither {
    Neither
}

#[yadtq::task]
fn result() -> Result<Written, std::fmt::Error> {
    Ok(Written)
}

type Alias = Result<Vec<Neither>, String>;

#[yadtq::task]
fn alias() -> Alias {
    Ok(vec![])
}

fn main() {
    let _ = value.call();
}
