//! What only the code that `#[yadtq::task]` writes uses.

use super::Task;
use crate::{call::Call, context::Context, error::Error, handle::TaskHandle};

/// The type of a leading parameter that is named `Context`: the macro sees the name only.
#[diagnostic::on_unimplemented(
    message = "a task's first parameter of a type named `Context` must be `yadtq::Context`",
    label = "this is another `Context`",
    note = "write `yadtq::Context`; if this one is an argument to send, give its type another name: `use other::Context as OtherContext`"
)]
pub trait Injected {
    /// The run's context.
    fn inject(context: Context) -> Self;
}

impl Injected for Context {
    fn inject(context: Context) -> Self {
        context
    }
}

/// Sends a call of `T`. Goes by the bounds of [`Task::Output`], so that a wrong output is reported there alone.
///
/// # Errors
/// As [`Call::delay`].
pub async fn delay<T: Task>(call: Call<T::Output>) -> Result<TaskHandle<T::Output>, Error> {
    call.delay().await
}
