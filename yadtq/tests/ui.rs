//! What `#[yadtq::task]` accepts, and what it says where it refuses.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p yadtq --test ui`, and read the difference as the
//! user who will see it.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
