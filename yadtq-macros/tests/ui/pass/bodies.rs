//! A task whose body comes from a macro, in a crate that forbids unsafe code.

#![forbid(missing_docs, unsafe_code)]

macro_rules! task {
    ($name:ident, $output:ty, $body:block) => {
        /// A task.
        #[yadtq::task]
        pub async fn $name() -> $output $body
    };
}

task!(one, u8, { 1 });

fn main() {
    let _ = one.run();
}
