//! Generates the task: a unit struct, its methods, and its `Task` impl.
//!
//! Paths in the generated code are absolute, and its own names are hygienic or unlikely. Where the compiler may report an
//! error, the spans are those of the user's code: an argument's type, the returned type, or else the function's name.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{LitStr, Path, ext::IdentExt, spanned::Spanned};

use crate::{
    docs::Docs,
    forward::{self, Forwarded},
    options::Options,
    signature::{Function, Param, Shape},
    spans::{ends, hygienic, located_at},
};

/// The task of a function without mistakes.
pub(crate) fn task(options: &Options, function: &Function, shape: &Shape) -> TokenStream {
    let expansion = Expansion::new(options, function, shape);
    expansion.item(&[expansion.probe(), expansion.function(), expansion.methods(), expansion.task_impl()])
}

/// What the parts of the generated code have in common.
pub(crate) struct Expansion<'a> {
    pub(crate) function: &'a Function,
    pub(crate) shape: &'a Shape,
    pub(crate) attrs: Forwarded<'a>,
    /// The path of the crate.
    pub(crate) yadtq: TokenStream,
    /// The path of the items that are only for generated code.
    private: TokenStream,
    docs: Docs,
    /// The task's name on the wire.
    name: String,
    /// Statements that set the options in [`definition`].
    settings: TokenStream,
    /// The function that decides which errors are retried.
    retry_if: Option<Path>,
}

impl<'a> Expansion<'a> {
    pub(crate) fn new(options: &Options, function: &'a Function, shape: &'a Shape) -> Self {
        let definition = definition();
        let position = |key: &LitStr| shape.params.iter().position(|param| param.wire_name() == key.value());
        let limit_key = options.text("limit_key").and_then(|key| {
            position(key).map(|at| quote!(#definition.limits.key = ::core::option::Option::Some((#key, #at));))
        });
        let (yadtq, settings) = (options.yadtq().to_token_stream(), options.settings(&definition));
        let private = quote!(#yadtq::__private);
        let states = shape.states.iter().map(|Param { ty, .. }| {
            quote_spanned!(ty.span()=> #definition.states.push(<#ty as #private::SharedState>::needed());)
        });
        Self {
            function,
            shape,
            retry_if: options.retry_if().cloned(),
            attrs: forward::sort(&function.attrs),
            docs: Docs::new(function, shape),
            name: options.text("name").map_or_else(|| function.sig.ident.unraw().to_string(), LitStr::value),
            settings: quote!(#settings #limit_key #(#states)*),
            private,
            yadtq,
        }
    }

    /// The struct, and `parts` in a scope of their own.
    pub(crate) fn item(&self, parts: &[TokenStream]) -> TokenStream {
        let Forwarded { conditions, item: attrs, lints, .. } = &self.attrs;
        let (vis, task, docs) = (&self.function.vis, &self.function.sig.ident, &self.docs.item);
        // A parameter cannot shadow a unit struct, and so not a task, but it can shadow a function. The span is not
        // the parameter's: an editor that is asked about the parameter should not find this.
        let shadowed = self.shape.all_params().map(|param| {
            let mut name = param.name.clone();
            name.set_span(name.span().located_at(Span::call_site()));
            name
        });
        quote! {
            #(#conditions)*
            #(#attrs)*
            #docs
            #(#lints)*
            #[allow(non_camel_case_types)]
            #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
            #vis struct #task;

            #(#conditions)*
            const _: () = {
                #(#[allow(dead_code, non_snake_case)] fn #shadowed() {})*
                #(#parts)*
            };
        }
    }

    /// The function as it was written, kept in a type of its own: there it has its name, for the spans of
    /// `#[tracing::instrument]`, and does not hide the task from its body, which may send it again.
    fn function(&self) -> TokenStream {
        let Function { sig, body, .. } = self.function;
        let Forwarded { lints, body: attrs, .. } = &self.attrs;
        let holder = holder();
        quote! {
            enum #holder {}

            // These lints suggest what a task cannot have: references, `const`, or a function that is not `async`.
            #[allow(
                clippy::large_types_passed_by_value,
                clippy::missing_const_for_fn,
                clippy::needless_pass_by_value,
                clippy::new_ret_no_self,
                clippy::unused_async
            )]
            impl #holder {
                #(#lints)*
                #(#attrs)*
                #sig #body
            }
        }
    }

    fn methods(&self) -> TokenStream {
        let Self { yadtq, private, name, function, shape, .. } = self;
        let Docs { call: call_docs, delay: delay_docs, handle: handle_docs, run: run_docs, .. } = &self.docs;
        let (vis, task, asyncness) = (&function.vis, &function.sig.ident, &function.sig.asyncness);
        let (names, params) = lists(shape.params.iter());
        let (all_names, all_params) = lists(shape.all_params());
        let pushes = shape.params.iter().map(push);
        // The names need no escapes in JSON.
        let wires: Vec<_> = shape.params.iter().map(|param| format!("\"{}\"", param.wire_name())).collect();
        let wires = format!("[{}]", wires.join(","));
        let output = quote!(<Self as #yadtq::Task>::Output);
        let (returned, must_use) = (&function.sig.output, &self.attrs.must_use);
        let holder = holder();
        let wait = asyncness.map(|_| quote!(.await));
        quote! {
            #[allow(dead_code, deprecated, private_interfaces, clippy::all, clippy::pedantic, clippy::nursery)]
            impl #task {
                #call_docs
                #vis fn call(self, #params) -> #yadtq::Call<#output> {
                    #yadtq::Call::of(&#yadtq::Task::definition(&self), #private::Writer::new(#name, #wires) #(#pushes)*)
                }

                #delay_docs
                #vis async fn delay(
                    self, #params
                ) -> ::core::result::Result<#yadtq::TaskHandle<#output>, #yadtq::Error> {
                    #private::delay::<Self>(self.call(#names)).await
                }

                #handle_docs
                #vis fn handle(self, client: &#yadtq::Client, id: #yadtq::TaskId) -> #yadtq::TaskHandle<#output> {
                    client.handle(id)
                }

                #run_docs
                #(#must_use)*
                #vis #asyncness fn run(self, #all_params) #returned {
                    #holder::#task(#all_names) #wait
                }
            }
        }
    }

    fn task_impl(&self) -> TokenStream {
        let Self { yadtq, private, name, settings, function, .. } = self;
        let task = &function.sig.ident;
        let output = self.output();
        let body = match function.sig.asyncness {
            Some(_) => quote!(Async),
            None => quote!(Blocking),
        };
        let (context, args) = (hygienic("context", Span::call_site()), hygienic("args", Span::call_site()));
        let (run, definition) = (self.run(&context, &args), definition());
        quote! {
            #[allow(deprecated, unused_mut, clippy::all, clippy::pedantic, clippy::nursery)]
            impl #yadtq::Task for #task {
                #output

                fn definition(&self) -> #yadtq::Definition {
                    let mut #definition =
                        #yadtq::Definition::new(#name, #private::Body::#body(|#context, mut #args| { #run }));
                    #settings
                    #definition
                }
            }
        }
    }

    /// The code that makes a run from the worker's context and arguments.
    fn run(&self, context: &Ident, args: &Ident) -> TokenStream {
        let Self { private, function, shape, .. } = self;
        let (task, holder) = (&function.sig.ident, holder());
        let wires = shape.params.iter().map(Param::wire_name);
        let mut steps = quote!(#args.expect(&[#(#wires),*])?;);
        let mut values = Vec::new();
        for (position, Param { ty, .. }) in shape.states.iter().enumerate() {
            let value = hygienic(&format!("state_{position}"), ty.span());
            steps.extend(quote!(let #value = <#ty as #private::SharedState>::shared(&#context)?;));
            values.push(value);
        }
        if let Some(Param { ty, .. }) = &shape.context {
            steps.extend(quote!(let #context = <#ty as #private::Injected>::inject(#context);));
            values.insert(0, context.clone());
        }
        for (position, param) in shape.params.iter().enumerate() {
            let (wire, ty) = (param.wire_name(), &param.ty);
            let value = hygienic(&format!("argument_{position}"), ty.span());
            steps.extend(quote!(let #value = #args.take::<#ty>(#wire)?;));
            values.push(value);
        }
        // `finish` refuses an error type that a task cannot have. The compiler reports it at the returned type only if all
        // tokens have the span of that type; with a hygienic span it would report it at the attribute.
        let ty = &shape.returned;
        let (is_result, returned) = (is_result(ty.span()), format_ident!("__yadtq_returned", span = ty.span()));
        let finish = match &self.retry_if {
            Some(retry_if) => {
                let retry_if_span = retry_if.span();
                quote_spanned!(retry_if_span=> __yadtq_finish_if::<#task, _, _>(#returned, #retry_if))
            }
            None => quote_spanned!(ty.span()=> __yadtq_finish::<#task, #ty, { #is_result }, _>(#returned)),
        };
        let run = match function.sig.asyncness {
            Some(_) => quote_spanned! {task.span()=>
                ::std::boxed::Box::pin(async move {
                    let #returned = #holder::#task(#(#values),*).await;
                    #finish
                })
            },
            None => quote_spanned! {task.span()=>
                ::std::boxed::Box::new(move || {
                    let #returned = #holder::#task(#(#values),*);
                    #finish
                })
            },
        };
        quote!(#steps ::core::result::Result::Ok(#run))
    }

    /// The type of the result, found by the type checker, which alone can see through an alias of `Result`. All spans are at
    /// the returned type, because that is what can be wrong.
    pub(crate) fn output(&self) -> TokenStream {
        let Self { private, shape, .. } = self;
        let (returned, is_result) = (&shape.returned, is_result(Span::call_site()));
        let (first, last) = ends(returned);
        let start = quote_spanned!(first=> type Output = <);
        let end = quote_spanned!(last=> Output;);
        quote!(#start #private::Ret<#is_result> as #private::Returned<#returned>>::#end)
    }

    /// Whether the function returns a `Result`, as a named constant, because rust-analyzer evaluates no others.
    pub(crate) fn probe(&self) -> TokenStream {
        let Self { private, shape, .. } = self;
        let (is_result, returned) = (is_result(Span::call_site()), &shape.returned);
        quote! {
            #[allow(unused_imports)]
            use #private::{NotResult as _, finish as __yadtq_finish, finish_if as __yadtq_finish_if};
            const #is_result: ::core::primitive::bool = #private::Probe::<#returned>::IS;
        }
    }
}

/// Parameters as arguments, and as they are declared.
pub(crate) fn lists<'a>(params: impl Iterator<Item = &'a Param>) -> (TokenStream, TokenStream) {
    let (names, types): (Vec<_>, Vec<_>) = params.map(|Param { name, ty }| (name, ty)).unzip();
    (quote!(#(#names),*), quote!(#(#names: #types),*))
}

/// The code that writes one argument. Its span is at the argument's type, because that is what can be wrong.
fn push(param: &Param) -> TokenStream {
    let (wire, ty) = (param.wire_name(), &param.ty);
    let value = located_at(ty.span(), &param.name);
    let value = quote_spanned!(ty.span()=> &#value);
    quote!(.push::<#ty>(#wire, #value))
}

fn holder() -> Ident {
    format_ident!("__YadtqFunction")
}

fn definition() -> Ident {
    hygienic("definition", Span::call_site())
}

fn is_result(span: Span) -> Ident {
    Ident::new("__YADTQ_IS_RESULT", span)
}
