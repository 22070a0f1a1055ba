//! Nothing in scope can get in the way of the generated code.
#![deny(warnings)]
#![allow(dead_code, non_camel_case_types, unused_macros)]

mod yadtq {}
mod core {}
mod std {}
mod serde {}

struct Result;
struct Option;
struct Ok;
struct Some;
struct Box;
struct String;
struct Vec;
struct Clone;
struct Copy;
struct Debug;
struct Task;
struct Call;
struct TaskHandle;
struct Error;
struct Definition;
struct Body;
struct Writer;
struct Reader;
struct Probe;
struct NotResult;
struct Ret;
struct i64;
struct bool;
struct str;
trait Send {}
trait Future {}

struct ctx;
struct args;
struct a0;
const BODY: u8 = 0;

macro_rules! vec {
    () => {};
}

#[::yadtq::task(queue = "math", timeout = "1s")]
async fn add(a: ::core::primitive::i64, b: ::std::vec::Vec<u8>) -> ::std::result::Result<u8, ::std::string::String> {
    let _ = (a, b);
    ::std::result::Result::Ok(BODY)
}

#[::yadtq::task]
fn double(a: u32) -> u32 {
    a * 2
}

fn main() {
    let _ = add.call(1, ::std::vec::Vec::new());
    let _ = double.run(2);
}
