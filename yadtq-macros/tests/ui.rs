//! The functions that `#[yadtq::task]` accepts, and its messages for those that it refuses.
//!
//! After a change of a message, run `TRYBUILD=overwrite cargo test -p yadtq-macros --test ui`, and read the difference as the user
//! who will see it.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
