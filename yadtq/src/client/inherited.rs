//! The headers of a call: those that the sender set, and those that a task inherits from the task that sends it.

use bytes::Bytes;
use tracing::warn;

use crate::{
    core::text::{Escaped, is_plain},
    error::Error,
    task::Context,
    wire::{Headers, dead::header},
};

/// The largest size of a task's headers, names and values together, in bytes.
pub(crate) const MAX_HEADER_BYTES: usize = 8_192;
/// Longest name of a header, in bytes.
const MAX_NAME_BYTES: usize = 256;

tokio::task_local! {
    /// The context of the run that this future or blocking task belongs to.
    static RUN: Context;
}

/// Runs a task's future. Tasks that it sends are children of this run's task.
pub(crate) fn scope<F: Future>(run: Context, future: F) -> impl Future<Output = F::Output> {
    RUN.scope(run, future)
}

/// The same for a blocking task.
pub(crate) fn scope_blocking<R>(run: Context, f: impl FnOnce() -> R) -> R {
    RUN.sync_scope(run, f)
}

/// Checks the headers of a call, and adds those that it inherits.
pub(super) fn headers(own: Vec<(String, String)>) -> Result<Headers, Error> {
    let mut headers = Headers::with_capacity(own.len());
    for (name, value) in own {
        check_name(&name)?;
        // As in a map, the last value of a name counts.
        headers.retain(|(earlier, _)| *earlier != name);
        headers.push((name, Bytes::from(value)));
    }
    let mut bytes = headers.iter().map(size).sum::<usize>();
    if bytes > MAX_HEADER_BYTES {
        let problem =
            format!("the headers of a task have at most {MAX_HEADER_BYTES} bytes together, these have {bytes}");
        return Err(Error::config("header", problem));
    }
    // Outside a task there is nothing to inherit.
    let _ = RUN.try_with(|run| {
        let set = headers.len();
        for (name, value) in run.headers() {
            if headers[..set].iter().any(|(own, _)| own == name) {
                continue;
            }
            let header = (name.to_owned(), Bytes::copy_from_slice(value));
            bytes += size(&header);
            if bytes > MAX_HEADER_BYTES {
                warn!(event = "headers_dropped", task_id = %run.id().shown(), header = %Escaped(name),
                    "the headers of a task are too large to be passed on to the tasks that it sends");
                break;
            }
            headers.push(header);
        }
        headers.push((header::PARENT.to_owned(), Bytes::from(run.id().to_string())));
        headers.push((header::ROOT.to_owned(), Bytes::from(run.root_id().to_string())));
    });
    Ok(headers)
}

fn check_name(name: &str) -> Result<(), Error> {
    let refused = |problem: String| Err(Error::config("header", problem));
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !is_plain(name) {
        return refused(format!("the name of a header has 1 to {MAX_NAME_BYTES} bytes and no control characters"));
    }
    if name.starts_with(header::PREFIX) {
        return refused(format!("`{name}`: names that begin with `{}` are reserved", header::PREFIX));
    }
    Ok(())
}

fn size((name, value): &(String, Bytes)) -> usize {
    name.len() + value.len()
}
