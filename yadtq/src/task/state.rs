//! The values that a worker's tasks share: the worker's builder takes them, and tasks name those that they need.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::Arc,
};

use thiserror::Error;

/// A value that the tasks of a worker share, such as a connection pool. A task that needs it takes it as a parameter, after its
/// [`Context`](crate::Context) and before what is sent. The worker provides it, and its builder refuses a worker that lacks it.
/// It derefs to the value, and is cheap to clone. (The idea is that of axum's extractor of the same name.)
///
/// ```
/// use yadtq::{Client, State, Worker};
///
/// struct Rates {
///     vat: u64,
/// }
///
/// #[yadtq::task]
/// async fn gross(rates: State<Rates>, net: u64) -> u64 {
///     net + net * rates.vat / 100
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { tokio::runtime::Runtime::new()?.block_on(async {
/// // Callers send the net amount alone.
/// let client = Client::embedded();
/// let worker = Worker::builder().client(&client).register(gross).state(Rates { vat: 19 }).start().await?;
/// assert_eq!(gross.call(100).send(&client).await?.await?, 119);
/// worker.stop().await?;
///
/// // In a unit test:
/// assert_eq!(gross.run(State::new(Rates { vat: 7 }), 100).await, 107);
/// # Ok(()) }) }
/// ```
pub struct State<T>(Arc<T>);

impl<T> State<T> {
    /// A value for a unit test of a task's body.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.0).finish()
    }
}

/// All shared values of a worker, by type.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl States {
    pub(crate) fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), Arc::new(value));
    }

    pub(crate) fn has(&self, needed: NeededState) -> bool {
        self.0.contains_key(&needed.id)
    }

    pub(super) fn get<T: Any + Send + Sync>(&self) -> Result<&T, MissingState> {
        let value = self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref());
        value.ok_or(MissingState { type_name: type_name::<T>() })
    }

    pub(super) fn shared<T: Any + Send + Sync>(&self) -> Result<State<T>, MissingState> {
        let value = self.0.get(&TypeId::of::<T>()).and_then(|value| Arc::clone(value).downcast().ok());
        value.map(State).ok_or(MissingState { type_name: type_name::<T>() })
    }
}

/// The worker has no shared value of this type. A task that fails with this error is not retried.
#[derive(Clone, Debug, Error)]
#[error("the worker has no state of type {type_name}; give it one with Worker::builder().state(..)")]
pub struct MissingState {
    type_name: &'static str,
}

/// The type of a value that a task needs.
#[derive(Clone, Copy, Debug)]
pub struct NeededState {
    id: TypeId,
    pub(crate) type_name: &'static str,
}

impl NeededState {
    pub(super) fn of<T: Any>() -> Self {
        Self { id: TypeId::of::<T>(), type_name: type_name::<T>() }
    }
}
