//! The attribute macro of YADTQ. Use it as `yadtq::task`, because the generated code needs that crate.

mod docs;
mod errors;
mod expand;
mod forward;
mod options;
mod rejected;
mod signature;
mod spans;
mod types;
mod values;

use proc_macro::TokenStream;

use self::{
    errors::Errors,
    options::Options,
    signature::{Function, Shape},
};

/// Makes a task from a function. Any process can send a task, and any worker that registers it can run it.
///
/// ```
/// #[yadtq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # #[tokio::main] async fn main() -> Result<(), yadtq::Error> {
/// assert_eq!(add.run(1, 2).await, 3); // in this process, as in a unit test
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
/// | `add.delay(1, 2).await` | the arguments | sends the task with the current client, and returns its `TaskHandle` |
/// | `add.call(1, 2)` | the arguments | makes a `Call`, on which options can be set before it is sent |
/// | `add.run(1, 2)` | all parameters | runs the body in this process; must be awaited if the function is `async` |
///
/// So `add(1, 2)` no longer works, nor does a variable named `add`.
///
/// # The function
///
/// An `async fn` runs on the application's runtime, and its future must be `Send`. A plain `fn` may block: it runs on a
/// bounded pool of threads.
///
/// Arguments are sent as JSON. So each parameter needs a plain name, and an owned type that implements `Send` and serde's
/// `Serialize` and `Deserialize`. An `Option` that the sender leaves out is `None`, so a new last parameter that is an
/// `Option` does not break senders that do not know it.
///
/// A first parameter whose type is written `Context` (or `yadtq::Context`) is not sent: the worker provides it.
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
/// Parameters of type `State<T>` (or `yadtq::State<T>`) after it are not sent either: the worker provides the values that tasks
/// share, and its builder refuses a worker that lacks one.
///
/// ```
/// use yadtq::State;
///
/// #[yadtq::task]
/// async fn greet(greeting: State<String>, name: String) -> String {
///     format!("{}, {name}", *greeting)
/// }
///
/// # #[tokio::main] async fn main() {
/// assert_eq!(greet.run(State::new("Hello".to_owned()), "Ada".to_owned()).await, "Hello, Ada");
/// # }
/// ```
///
/// The function returns nothing, a value, or a `Result`, which may have an alias. The value is sent as JSON, like the
/// arguments. The error may be any `std::error::Error`, `anyhow::Error`, `Box<dyn Error>`, `String`, `&'static str` or
/// `yadtq::TaskError`; the caller gets its text and the texts of its sources. Both types must be as visible as the function.
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
/// Documentation and `#[cfg]` are applied to the struct, other attributes such as `#[tracing::instrument]` to the function
/// inside.
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
/// | `name` | the task's name in records, at most 200 bytes. Workers find the function by it, so no two tasks of a worker can have the same name | the function's name |
/// | `queue` | the queue to which the task is sent, unless the sender chooses another: lowercase letters, digits, `-` | `default` |
/// | `timeout` | the longest time that one run may take: `500ms`, `30s`, `1h 30m` | no limit |
/// | `soft_timeout` | the time after which a run is asked to end, through `ctx.cancelled()`: `25s` | 90 % of the timeout |
/// | `result_ttl` | how long the result is kept, at most 365 days; `0s` keeps none | that of the worker: 24 h, or 1 h if the task returns nothing |
/// | `expires` | the time after it was sent within which the task must start; later it is revoked | no limit |
/// | `unique` | for how long a later call with the same arguments makes no second task | every call makes one |
/// | `priority` | how soon the task starts, compared with other tasks of its queue, unless the sender chooses: `high`, `normal`, `low` | `normal` |
/// | `max_retries` | number of retries after the first attempt, at most 1000 | that of the worker, 12 |
/// | `retry_base`, `retry_cap` | the longest delay before the first retry (the shortest is half of it), which doubles with each retry, and the longest delay before any retry | those of the worker, `2s` and `1h` |
/// | `retry_if` | the path of a function from a reference to the error to `bool`: whether to retry | every error is retried |
/// | `rate_limit` | the largest rate at which tasks start, over all workers: `10/s`, `100/m`, `5/h`; at most 10000/s. Tasks that may not start yet wait outside the worker | no limit |
/// | `rate_burst` | number of tasks that may start at once under that rate, after a time without starts; 1 to 100000 | 1: starts are evenly spread |
/// | `max_running` | the largest number of tasks that run at once, over all workers; 1 to 1000000 | no limit |
/// | `limit_key` | a parameter: each of its values has its own `rate_limit` and `max_running` | all tasks share the limits |
/// | `crate` | the path of the `yadtq` crate, if it has another name or is re-exported | `::yadtq` |
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options.into(), item.into()).into()
}

fn expand(options: proc_macro2::TokenStream, item: proc_macro2::TokenStream) -> proc_macro2::TokenStream {
    let mut errors = Errors::default();
    let options = Options::read(&options, &mut errors);
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            return [item, errors.into_tokens()].into_iter().collect();
        }
    };
    let mut unfit = Errors::default();
    let shape = Shape::check(&function.sig, &mut unfit);
    if let Some(key) = options.text("limit_key")
        && !shape.params.iter().any(|param| param.wire_name() == key.value())
    {
        let key_text = key.value();
        errors.at(key, format_args!("no parameter that is sent is named `{key_text}`; `limit_key` names a parameter, and each of its values has its own limits"));
    }
    let expansion = match unfit.is_empty() {
        true => expand::task(&options, &function, &shape),
        false => rejected::task(&options, &function, &shape),
    };
    [expansion, errors.into_tokens(), unfit.into_tokens()].into_iter().collect()
}
