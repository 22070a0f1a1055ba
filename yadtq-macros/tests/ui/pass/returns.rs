//! Every way to return: nothing, a value, a `Result` under any name, and every error type.

use std::{collections::HashMap, error::Error, fmt, io};

use yadtq::{Task, TaskError};

#[yadtq::task]
async fn nothing() {}

#[yadtq::task]
async fn unit() -> () {}

#[yadtq::task]
fn value() -> HashMap<String, (u8, Option<i64>)> {
    HashMap::new()
}

#[yadtq::task]
fn std_error() -> Result<i64, io::Error> {
    Ok(1)
}

#[yadtq::task]
async fn alias() -> io::Result<i64> {
    Ok(1)
}

type Shifted<E> = std::result::Result<i64, E>;

#[yadtq::task]
async fn shifted_alias() -> Shifted<&'static str> {
    Ok(1)
}

type Hidden = Result<i64, TaskError>;

#[yadtq::task]
async fn alias_without_arguments() -> Hidden {
    Ok(1)
}

mod misleading {
    pub type Result<T, E> = std::result::Result<Vec<T>, E>;
}

#[yadtq::task]
async fn misleading_alias() -> misleading::Result<i64, String> {
    Ok(vec![1])
}

#[yadtq::task]
async fn any_error() -> anyhow::Result<i64> {
    let number = "1".parse()?;
    Ok(number)
}

#[yadtq::task]
async fn boxed() -> Result<i64, Box<dyn Error>> {
    Ok("1".parse()?)
}

#[yadtq::task]
async fn boxed_send() -> Result<i64, Box<dyn Error + Send + Sync>> {
    Ok("1".parse()?)
}

#[yadtq::task]
fn text() -> Result<(), String> {
    Err("no".to_owned())
}

#[yadtq::task]
fn static_text() -> Result<(), &'static str> {
    Err("no")
}

#[yadtq::task]
async fn own() -> Result<i64, TaskError> {
    let number = "1".parse()?;
    Ok(number)
}

#[derive(Debug)]
enum Mine {
    Bad,
}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad")
    }
}

impl Error for Mine {}

#[yadtq::task]
async fn mine(good: bool) -> Result<i64, Mine> {
    if good { Ok(1) } else { Err(Mine::Bad) }
}

#[yadtq::task]
async fn nested() -> Result<Result<i64, String>, Mine> {
    Ok(Ok(1))
}

fn output<T: Task<Output = O>, O>(_: T) {}

fn main() {
    output::<_, ()>(nothing);
    output::<_, ()>(unit);
    output::<_, HashMap<String, (u8, Option<i64>)>>(value);
    output::<_, i64>(std_error);
    output::<_, i64>(alias);
    output::<_, i64>(shifted_alias);
    output::<_, i64>(alias_without_arguments);
    output::<_, Vec<i64>>(misleading_alias);
    output::<_, i64>(any_error);
    output::<_, i64>(boxed);
    output::<_, i64>(boxed_send);
    output::<_, ()>(text);
    output::<_, ()>(static_text);
    output::<_, i64>(own);
    output::<_, i64>(mine);
    output::<_, Result<i64, String>>(nested);

    // What callers see is the type itself.
    let _: yadtq::Call<i64> = mine.call(true);
    let _: Result<i64, Mine> = futures(mine.run(true));
}

fn futures<T>(_: impl Future<Output = T>) -> T {
    std::process::exit(0)
}
