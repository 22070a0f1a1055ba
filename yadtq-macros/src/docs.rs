//! The documentation of what the macro makes, for completion and rustdoc.

use proc_macro2::TokenStream;
use quote::quote;

use crate::signature::{Function, Param, Shape};

/// Doc attributes, for the struct and its methods.
pub(crate) struct Docs {
    pub(crate) item: TokenStream,
    pub(crate) call: TokenStream,
    pub(crate) delay: TokenStream,
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
        let context = match shape.context {
            Some(_) => " The worker provides the `Context`; a test takes `Context::for_test()`.",
            None => "",
        };
        Self {
            item: lines(&[
                // Ends the user's own paragraph; rustdoc drops it where there is none.
                String::new(),
                format!(
                    "A task: send it with `{task}.delay({sent}).await`, set options first with `{task}.call({sent})`,"
                ),
                format!("or run it right here, as in a unit test, with `{task}.run({all}){dot_await}`.{pool}"),
            ]),
            call: lines(&[format!(
                "A call of `{task}`, to set options on before it is sent: nothing happens until then."
            )]),
            delay: lines(&[
                format!(
                    "Sends `{task}` with the client at hand: inside a task the worker's, else the installed one, else"
                ),
                "one made from the environment. `Ok` means that the task will run.".to_owned(),
                String::new(),
                "# Errors".to_owned(),
                "An argument cannot be sent, or the task was not acknowledged.".to_owned(),
            ]),
            run: lines(&[format!("Runs the body of `{task}` right here: no queue, no worker.{context}")]),
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
