//! From what a task's function returns to JSON, or to the error to record.
//!
//! A function returns a value or a `Result`, perhaps through an alias, and the macro cannot see which. The
//! type checker can: the inherent `Probe::<R>::IS` exists for `Result`s only and wins over the trait's
//! default, and `Ret<{ IS }>` then selects the impl of [`Split`] that names the output.

use std::marker::PhantomData;

use serde::Serialize;

use super::{Finished, TaskError};
use crate::wire::failure::ErrorKind;

/// Tells whether `R` is a `Result`.
#[derive(Debug)]
pub struct Probe<R>(PhantomData<R>);

impl<T, E> Probe<Result<T, E>> {
    /// It is.
    pub const IS: bool = true;
}

/// The answer for everything that is not a `Result`.
pub trait NotResult {
    /// It is not.
    const IS: bool = false;
}

impl<R> NotResult for Probe<R> {}

/// Selects the impl of [`Split`].
#[derive(Debug)]
pub struct Ret<const IS_RESULT: bool>;

/// Splits what a function returns into output and error.
pub trait Split<R, Via> {
    /// The value, or the `Ok` side.
    type Output;

    /// The two sides.
    fn split(returned: R) -> Result<Self::Output, TaskError>;
}

impl<T> Split<T, ()> for Ret<false> {
    type Output = T;

    fn split(returned: T) -> Result<T, TaskError> {
        Ok(returned)
    }
}

impl<T, E: IntoTaskError<Via>, Via> Split<Result<T, E>, Via> for Ret<true> {
    type Output = T;

    fn split(returned: Result<T, E>) -> Result<T, TaskError> {
        returned.map_err(E::into_task_error)
    }
}

/// An error type that a task may return: any [`std::error::Error`], `anyhow::Error`, `Box<dyn Error>`,
/// `String`, `&str` or [`TaskError`]. `Via` only keeps the impls apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a task",
    note = "return `Result<T, E>` where `E` implements `std::error::Error`, or is `String`, `anyhow::Error` or `yadtq::TaskError`"
)]
pub trait IntoTaskError<Via> {
    /// The error to record.
    fn into_task_error(self) -> TaskError;
}

/// Through the conversion that std and anyhow give to error types and texts.
#[derive(Debug)]
pub struct ViaBox;

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> IntoTaskError<ViaBox> for E {
    fn into_task_error(self) -> TaskError {
        let error: Box<dyn std::error::Error + Send + Sync> = self.into();
        TaskError::new(with_sources(&*error))
    }
}

/// Boxed errors that cannot cross threads.
#[derive(Debug)]
pub struct ViaLocalBox;

impl IntoTaskError<ViaLocalBox> for Box<dyn std::error::Error> {
    fn into_task_error(self) -> TaskError {
        TaskError::new(with_sources(&*self))
    }
}

/// As it is.
#[derive(Debug)]
pub struct ViaSelf;

impl IntoTaskError<ViaSelf> for TaskError {
    fn into_task_error(self) -> TaskError {
        self
    }
}

/// The error's text and those of its sources, where they say more.
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

/// The output as JSON text.
///
/// # Errors
/// The function failed, or its value cannot be written as JSON.
pub fn finish<T: Serialize>(output: Result<T, TaskError>) -> Finished {
    serde_json::to_string(&output?)
        .map_err(|e| TaskError::of(ErrorKind::Result, format!("the returned value cannot be stored as JSON: {e}")))
}
