//! Turns what a task's function returns into JSON, or into the error to record.
//!
//! A function returns a value or a `Result`, perhaps through an alias, and the macro cannot see which. The
//! type checker can: the inherent `Probe::<R>::IS` exists for `Result`s only and wins over the trait's
//! default, and `Ret<{ IS }>` then selects the impl of [`Returned`] that names the output.

use std::marker::PhantomData;

use serde::Serialize;

use super::{Finished, MissingState, Steer, Task, TaskError};
use crate::wire::failure::ErrorKind;

/// Finds out whether `R` is a `Result`.
#[derive(Debug)]
pub struct Probe<R>(PhantomData<R>);

impl<T, E> Probe<Result<T, E>> {
    /// `R` is a `Result`.
    pub const IS: bool = true;
}

/// The answer of [`Probe`] for every type that is not a `Result`.
pub trait NotResult {
    /// `R` is not a `Result`.
    const IS: bool = false;
}

impl<R> NotResult for Probe<R> {}

/// Selects the impl of [`Returned`].
#[derive(Debug)]
pub struct Ret<const IS_RESULT: bool>;

/// Names the output of a function that returns `R`.
pub trait Returned<R> {
    /// The type of the returned value, or of the `Ok` of a `Result`.
    type Output;
}

impl<T> Returned<T> for Ret<false> {
    type Output = T;
}

impl<T, E> Returned<Result<T, E>> for Ret<true> {
    type Output = T;
}

/// Splits what a function returned into output and error. `Via` is the parameter of [`IntoTaskError`].
pub trait Split<R, Via>: Returned<R> {
    /// Returns the output, or the error to record.
    fn split(returned: R) -> Result<Self::Output, TaskError>;
}

impl<T> Split<T, ()> for Ret<false> {
    fn split(returned: T) -> Result<T, TaskError> {
        Ok(returned)
    }
}

impl<T, E: IntoTaskError<Via>, Via> Split<Result<T, E>, Via> for Ret<true> {
    fn split(returned: Result<T, E>) -> Result<T, TaskError> {
        returned.map_err(E::into_task_error)
    }
}

/// An error type that a task may return: any [`std::error::Error`], `anyhow::Error`, `Box<dyn Error>`,
/// `String`, `&str` or [`TaskError`]. `Via` only distinguishes the impls.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a task",
    label = "its error is `{Self}`",
    note = "implement `std::error::Error` for it, or turn it into a `String`, an `anyhow::Error` or a `yadtq::TaskError` with `map_err`"
)]
pub trait IntoTaskError<Via> {
    /// The error to record.
    fn into_task_error(self) -> TaskError;
}

/// Converts an error with the conversion that std and anyhow have for error types and texts.
#[derive(Debug)]
pub struct ViaBox;

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> IntoTaskError<ViaBox> for E {
    fn into_task_error(self) -> TaskError {
        let error: Box<dyn std::error::Error + Send + Sync> = self.into();
        of_error(&*error)
    }
}

/// Converts the two error types that std's conversion leaves out.
#[derive(Debug)]
pub struct ViaOwn;

// This impl is generic over a trait with two impls, instead of being two impls. As it is, there are two candidates for every
// type, and for a wrong type the compiler reports that `IntoTaskError` is missing, with our message. With a single candidate
// it would report a missing `From` instead.
impl<E: OwnError> IntoTaskError<ViaOwn> for E {
    fn into_task_error(self) -> TaskError {
        self.into_own()
    }
}

/// The error types of [`ViaOwn`].
trait OwnError {
    fn into_own(self) -> TaskError;
}

impl OwnError for TaskError {
    fn into_own(self) -> TaskError {
        self
    }
}

impl OwnError for Box<dyn std::error::Error> {
    fn into_own(self) -> TaskError {
        of_error(&*self)
    }
}

/// The error to record. A worker without the state that a task needs won't have it at the next attempt either.
pub(super) fn of_error(error: &(dyn std::error::Error + 'static)) -> TaskError {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    let steer = if chain.any(|error| error.is::<MissingState>()) { Steer::Fatal } else { Steer::Policy };
    TaskError { steer, ..TaskError::new(with_sources(error)) }
}

/// The text of an error and the texts of its sources, without those that the text before already ends with.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

/// What the function of `T` returned, as JSON text. It repeats no bounds of [`Task::Output`], so that the compiler reports a
/// wrong output only once.
///
/// # Errors
/// The function failed, or its value cannot be written as JSON.
pub fn finish<T: Task, R, const IS_RESULT: bool, Via>(returned: R) -> Finished
where
    Ret<IS_RESULT>: Split<R, Via, Output = T::Output>,
{
    let output = Ret::<IS_RESULT>::split(returned)?;
    write(&output)
}

/// Does the same as [`finish`] for a task whose option `retry_if` says which of its errors are retried.
///
/// # Errors
/// The same as those of [`finish`].
pub fn finish_if<T: Task, E: IntoTaskError<Via>, Via>(
    returned: Result<T::Output, E>, retry_if: impl FnOnce(&E) -> bool,
) -> Finished {
    let error = match returned {
        Ok(output) => return write(&output),
        Err(error) => error,
    };
    let steer = if retry_if(&error) { Steer::Policy } else { Steer::Fatal };
    let error = error.into_task_error();
    // What the error itself decides has precedence.
    Err(if error.steer == Steer::Policy { TaskError { steer, ..error } } else { error })
}

fn write(output: &impl Serialize) -> Finished {
    serde_json::to_string(output).map_err(|e| {
        TaskError::fatal_of(ErrorKind::Result, format!("the returned value cannot be stored as JSON: {e}"))
    })
}
