//! The attribute macro of YADTQ. Use it as `yadtq::task`: the code it writes needs that crate.

mod attr;
mod docs;
mod errors;
mod expand;
mod forward;
mod rejected;
mod signature;
mod spans;
mod types;

use proc_macro::TokenStream;

use self::{
    attr::Options,
    errors::Errors,
    signature::{Function, Shape},
};

/// Makes a task of a function: code that any process can call, and any worker can run.
///
/// ```
/// #[yadtq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # #[tokio::main] async fn main() -> Result<(), yadtq::Error> {
/// assert_eq!(add.run(1, 2).await, 3); // right here, as in a unit test
///
/// # let client = yadtq::Client::embedded();
/// # client.install()?;
/// let worker = yadtq::Worker::builder().register(add).build()?.start().await?;
/// let sum: i64 = add.delay(1, 2).await?.await?; // on a worker
/// assert_eq!(sum, 3);
/// # worker.stop().await }
/// ```
///
/// The function becomes a unit struct of the same name, which implements `yadtq::Task` and has three methods:
///
/// | | takes | does |
/// |---|---|---|
/// | `add.delay(1, 2).await` | the arguments | sends the task with the client at hand, returns its `TaskHandle` |
/// | `add.call(1, 2)` | the arguments | makes a `Call`, to set options on before it is sent |
/// | `add.run(1, 2)` | all parameters | runs the body right here; to be awaited if the function is `async` |
///
/// Two things no longer work next to it: `add(1, 2)`, and a variable named `add`.
///
/// # The function
///
/// An `async fn` runs on the worker's runtime, and its future must be `Send`. A plain `fn` may block: it runs on a
/// bounded pool of threads.
///
/// Arguments are sent as JSON. So each needs a plain name, and an owned type that implements serde's `Serialize`
/// and `Deserialize` and `Send`. An `Option` that the caller leaves out is `None`: a parameter that is added
/// last, as an `Option`, does not break senders that do not know it.
///
/// A first parameter whose type is spelled `Context` (or `yadtq::Context`) is not sent: the worker provides it.
///
/// ```
/// use yadtq::Context;
///
/// #[yadtq::task]
/// async fn import(ctx: Context, rows: Vec<String>) -> usize {
///     rows.into_iter().take_while(|_row| !ctx.is_cancelled()).count()
/// }
///
/// # #[tokio::main] async fn main() {
/// assert_eq!(import.run(Context::for_test(), vec!["a".into()]).await, 1);
/// # }
/// ```
///
/// It returns nothing, a value, or a `Result`, also through an alias. The value is sent as JSON, as the arguments
/// are. The error may be any `std::error::Error`, `anyhow::Error`, `Box<dyn Error>`, `String`, `&'static str` or
/// `yadtq::TaskError`; the caller gets its text, with that of its sources. Both types must be as visible as the
/// function.
///
/// ```
/// #[yadtq::task]
/// fn parse(number: String) -> anyhow::Result<i64> {
///     Ok(number.parse()?)
/// }
///
/// assert_eq!(parse.run("42".to_owned()).unwrap(), 42);
/// ```
///
/// Attributes go where they work: documentation and `#[cfg]` to the struct, `#[tracing::instrument]` and the like to
/// the function inside.
///
/// # Options
///
/// ```
/// # use std::time::Duration;
/// # use yadtq::Task;
/// #[yadtq::task(name = "mail.send", queue = "mail", timeout = "1m 30s", result_ttl = "1h")]
/// async fn send_mail(to: String) {
///     // ..
/// }
///
/// assert_eq!(send_mail.definition().name(), "mail.send");
/// assert_eq!(send_mail.definition().queue(), Some("mail"));
/// assert_eq!(send_mail.definition().timeout(), Some(Duration::from_secs(90)));
/// ```
///
/// | | | default |
/// |---|---|---|
/// | `name` | its name in records, at most 200 bytes: workers find the function by it, and two tasks of a worker cannot share it | the function's name |
/// | `queue` | where it is sent unless the sender chooses another queue: lowercase letters, digits, `-` | `default` |
/// | `timeout` | how long one run may take: `500ms`, `30s`, `1h 30m` | no limit |
/// | `result_ttl` | how long the result of a run is kept, at most 365 days; `0s`: not at all | the worker's, 24 h |
/// | `expires` | how long after it was sent it may start; later it ends as revoked | no limit |
/// | `unique` | for how long a call with the same arguments makes no second task | every call makes one |
/// | `priority` | how soon it runs beside others of its queue, unless the sender chooses: `high`, `normal`, `low` | `normal` |
/// | `max_retries` | how often it is tried again after its first attempt, at most 1000 | the worker's, 3 |
/// | `retry_base`, `retry_cap` | the longest wait before the first retry, doubled with each, and before any | the worker's, `1s` and `10m` |
/// | `retry_if` | the path of a function from a reference to the error to `bool`: whether to try again | every error is worth it |
/// | `rate_limit` | how often it starts, over all workers: `10/s`, `100/m`, `5/h`; at most 10000/s. Others wait outside of the worker | no limit |
/// | `rate_burst` | how many may start at once under that rate, after a quiet time; 1 to 100000 | 1: evenly spread |
/// | `max_running` | how many of it run at once, over all workers; 1 to 1000000 | no limit |
/// | `limit_key` | a parameter each value of which has a `rate_limit` and `max_running` of its own | the task has one |
/// | `crate` | the path of the `yadtq` crate, where it has another name or is re-exported | `::yadtq` |
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options.into(), item.into()).into()
}

fn expand(options: proc_macro2::TokenStream, item: proc_macro2::TokenStream) -> proc_macro2::TokenStream {
    let mut errors = Errors::default();
    let options = Options::read(options, &mut errors);
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            return [item, errors.into_tokens()].into_iter().collect();
        }
    };
    let mut unfit = Errors::default();
    let shape = Shape::check(&function.sig, &mut unfit);
    if let Some(key) = &options.limit_key
        && !shape.params.iter().any(|param| param.wire_name() == key.value())
    {
        let key_text = key.value();
        errors.at(key, format_args!("no parameter that is sent is named `{key_text}`; `limit_key` names the one each value of which has limits of its own"));
    }
    let expansion = match unfit.is_empty() {
        true => expand::task(&options, &function, &shape),
        false => rejected::task(&options, &function, &shape),
    };
    [expansion, errors.into_tokens(), unfit.into_tokens()].into_iter().collect()
}
