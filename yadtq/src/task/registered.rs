//! Tasks as a worker's builder takes them: one, several, or a list.

use super::{Definition, Task};

/// What [`WorkerBuilder::register`](crate::WorkerBuilder::register) takes: a task, a tuple of up to twelve, or the list that
/// [`tasks!`](crate::tasks) makes. Tuples may hold tuples.
///
/// ```
/// use yadtq::{Definition, Worker};
///
/// mod mail {
///     #[yadtq::task]
///     pub async fn welcome(to: String) {}
///
///     #[yadtq::task]
///     pub async fn receipt(order: u64) {}
///
///     /// All tasks of this module.
///     pub fn tasks() -> Vec<yadtq::Definition> {
///         yadtq::tasks![welcome, receipt]
///     }
/// }
///
/// #[yadtq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// #[yadtq::task]
/// async fn mul(a: i64, b: i64) -> i64 {
///     a * b
/// }
///
/// let worker = Worker::builder().register((add, mul)).register(mail::tasks()).build()?;
/// # Ok::<(), yadtq::Error>(())
/// ```
pub trait Tasks {
    /// The tasks' definitions, in order.
    fn definitions(self) -> Vec<Definition>;
}

impl<T: Task> Tasks for T {
    fn definitions(self) -> Vec<Definition> {
        vec![self.definition()]
    }
}

impl Tasks for Vec<Definition> {
    fn definitions(self) -> Vec<Definition> {
        self
    }
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: Tasks),+> Tasks for ($($name,)+) {
            #[allow(non_snake_case, reason = "a type and its value share a name")]
            fn definitions(self) -> Vec<Definition> {
                let ($($name,)+) = self;
                [$($name.definitions()),+].concat()
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
