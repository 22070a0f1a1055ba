#[yadtq::task]
unsafe fn not_safe(a: i64) -> i64 {
    a
}

#[yadtq::task]
extern "C" fn foreign(a: i64) -> i64 {
    a
}

#[yadtq::task]
const fn constant(a: i64) -> i64 {
    a
}

#[yadtq::task]
unsafe extern "C" fn variadic(a: i64, _: ...) -> i64 {
    a
}

fn main() {
    let _ = (not_safe.call(1), foreign.call(1), constant.call(1), variadic.call(1));
}
