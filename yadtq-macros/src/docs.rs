//! The documentation of the generated items, for rustdoc and editors.

use proc_macro2::TokenStream;
use quote::quote;

use crate::signature::{Function, Param, Shape};

/// Doc attributes, for the struct and its methods.
pub(crate) struct Docs {
    pub(crate) item: TokenStream,
    pub(crate) call: TokenStream,
    pub(crate) delay: TokenStream,
    pub(crate) handle: TokenStream,
    pub(crate) run: TokenStream,
}

impl Docs {
    pub(crate) fn new(function: &Function, shape: &Shape) -> Self {
        let task = &function.sig.ident;
        let sent = list(shape.params.iter());
        let all = list(shape.all_params());
        let (dot_await, pool) = match function.sig.asyncness {
            Some(_) => (".await", ""),
            None => ("", " Workers run it on their blocking pool."),
        };
        let context = match (&shape.context, shape.states.is_empty()) {
            (Some(_), true) => " The worker provides the `Context`; a test takes `Context::for_test()`.",
            (Some(_), false) => {
                " The worker provides the `Context` and the state; a test takes `Context::for_test()` and `State::new(value)`."
            }
            (None, false) => " The worker provides the state; a test takes `State::new(value)`.",
            (None, true) => "",
        };
        Self {
            item: lines(&[
                // An empty line ends the paragraph of the user's own documentation, if there is one.
                String::new(),
                format!(
                    "This is a task: send it with `{task}.delay({sent}).await`, set options first with `{task}.call({sent})`,"
                ),
                format!("or run it in this process, as in a unit test, with `{task}.run({all}){dot_await}`.{pool}"),
            ]),
            call: lines(&[format!(
                "Makes a call of `{task}`. Options can be set on it; nothing happens until it is sent."
            )]),
            delay: lines(&[
                format!(
                    "Sends `{task}` with the current client: inside a task the worker's client, else the installed one, else"
                ),
                "one that is made from the environment. `Ok` means that the task will run.".to_owned(),
                String::new(),
                "# Errors".to_owned(),
                "An argument cannot be sent, or Kafka did not acknowledge the task.".to_owned(),
            ]),
            handle: lines(&[format!("The handle of a task `{task}` that was sent from anywhere, by its id.")]),
            run: lines(&[format!("Runs the body of `{task}` in this process, without a queue or a worker.{context}")]),
        }
    }
}

fn lines(lines: &[String]) -> TokenStream {
    let lines = lines.iter().map(|line| match line.is_empty() {
        true => String::new(),
        false => format!(" {line}"),
    });
    quote!(#(#[doc = #lines])*)
}

fn list<'a>(params: impl Iterator<Item = &'a Param>) -> String {
    params.map(|param| param.name.to_string()).collect::<Vec<_>>().join(", ")
}
