//! Modules, visibilities, function bodies, private types.
#![deny(warnings)]

mod outer {
    pub(crate) mod tasks {
        use serde::{Deserialize, Serialize};

        use super::Shared;

        #[derive(Serialize, Deserialize)]
        struct Private(i64);

        #[yadtq::task]
        pub async fn public(a: Shared) -> super::Shared {
            a
        }

        #[yadtq::task]
        pub(crate) async fn in_crate(a: i64) -> i64 {
            let _ = private.call(Private(a));
            private.run(Private(a)).0
        }

        #[yadtq::task]
        pub(super) fn in_parent(a: i64) -> i64 {
            a
        }

        #[yadtq::task]
        pub(in crate::outer) fn in_outer() {}

        // Workers can run what callers cannot name.
        #[yadtq::task]
        pub(crate) async fn private_argument(a: Private) -> i64 {
            a.0
        }

        #[yadtq::task]
        fn private(a: Private) -> Private {
            a
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Shared(pub i64);

    pub fn all() -> [&'static str; 2] {
        use yadtq::Task as _;
        [tasks::in_parent.definition().name(), tasks::in_outer.definition().name()]
    }
}

#[yadtq::task]
async fn sends_itself(depth: u32) -> Result<(), yadtq::Error> {
    if depth > 0 {
        sends_itself.delay(depth - 1).await?;
    }
    Ok(())
}

fn main() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Local(i64);

    #[yadtq::task(queue = "math")]
    async fn local(a: Local) -> i64 {
        a.0
    }

    let _ = local.call(Local(1));
    let _ = outer::tasks::public.call(outer::Shared(1));
    let _ = outer::tasks::in_crate.call(1);
    let _ = outer::all();
    let _ = sends_itself.call(1);
    let copied = sends_itself;
    assert_eq!(format!("{copied:?}"), "sends_itself");
}
