//! Attributes of the function go where they work.
#![deny(warnings)]

/// Adds. The documentation of the task.
///
/// ```text
/// add
/// ```
#[yadtq::task]
#[doc(alias = "plus")]
#[inline]
pub fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[yadtq::task]
#[cfg(any())]
async fn absent(a: NoSuchType) {}

#[yadtq::task]
#[cfg(all())]
async fn present() {}

#[cfg_attr(all(), yadtq::task)]
#[cfg_attr(all(), doc = "Documented under a condition.")]
#[cfg_attr(all(), allow(unused_variables))]
async fn conditional(a: i64) {}

#[yadtq::task]
#[allow(unused_variables, dead_code)]
fn lenient(a: i64) {
    let b = 1;
}

#[yadtq::task]
#[expect(unused_variables)]
fn expecting(a: i64) {}

#[allow(non_snake_case)]
#[yadtq::task]
fn camelCase() {}

#[yadtq::task]
#[must_use = "it is the sum"]
fn wanted() -> i64 {
    1
}

#[yadtq::task]
#[deprecated = "use `add`"]
fn outdated() {}

#[yadtq::task]
#[tracing::instrument(skip(password), fields(kind = "login"))]
async fn instrumented(user: String, password: String) -> usize {
    user.len() + password.len()
}

#[yadtq::task]
#[tracing::instrument]
fn instrumented_blocking(user: String) -> usize {
    user.len()
}

fn main() {
    let _ = add.run(1, 2);
    let _ = present.call();
    let _ = conditional.call(1);
    lenient.run(1);
    expecting.run(1);
    camelCase.run();
    let _ = wanted.run();
    #[allow(deprecated)]
    outdated.run();
    let _ = instrumented.call("a".to_owned(), "b".to_owned());
    let _ = instrumented_blocking.run("a".to_owned());
}
