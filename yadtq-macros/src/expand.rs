//! Writes the task: a unit struct, its methods, and its `Task` impl.
//!
//! Paths in the generated code are absolute, and its own names hygienic or unlikely. Spans are the user's where the
//! compiler may object: an argument's type, the returned type, and the function's name for what has no better place.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Type, ext::IdentExt, spanned::Spanned};

use crate::{
    attr::Options,
    docs::Docs,
    forward::{self, Forwarded},
    signature::{Function, Param, Shape},
};

/// The task of a sound function.
pub(crate) fn task(options: &Options, function: &Function, shape: &Shape) -> TokenStream {
    let expansion = Expansion::new(options, function, shape);
    let parts = [expansion.function(), expansion.methods(), expansion.task_impl()];
    expansion.item(&parts)
}

/// The closest thing to a task for a function that cannot be one, so that code that uses it does not fail as well.
pub(crate) fn rejected(options: &Options, function: &Function, shape: &Shape) -> TokenStream {
    if function.sig.receiver().is_some() {
        // This is inside of an `impl`, where a struct cannot be.
        return function.to_token_stream();
    }
    let expansion = Expansion::new(options, function, shape);
    expansion.item(&[expansion.rejected_methods(), expansion.rejected_impl()])
}

struct Expansion<'a> {
    function: &'a Function,
    shape: &'a Shape,
    attrs: Forwarded<'a>,
    docs: Docs,
    yadtq: TokenStream,
    private: TokenStream,
    /// The task's name on the wire.
    name: String,
    /// `.queue(..).timeout(..)`
    settings: TokenStream,
}

impl<'a> Expansion<'a> {
    fn new(options: &Options, function: &'a Function, shape: &'a Shape) -> Self {
        let yadtq = options.yadtq.to_token_stream();
        let queue = options.queue.iter();
        let (seconds, nanos): (Vec<_>, Vec<_>) =
            options.timeout.iter().map(|timeout| (timeout.as_secs(), timeout.subsec_nanos())).unzip();
        Self {
            function,
            shape,
            attrs: forward::sort(&function.attrs),
            docs: Docs::new(function, shape),
            private: quote!(#yadtq::__private),
            name: options.name.clone().unwrap_or_else(|| function.sig.ident.unraw().to_string()),
            settings: quote!(#(.queue(#queue))* #(.timeout(::core::time::Duration::new(#seconds, #nanos)))*),
            yadtq,
        }
    }

    /// The struct, and `parts` in a scope of their own.
    fn item(&self, parts: &[TokenStream]) -> TokenStream {
        let Self { function, shape, .. } = self;
        let probe = self.probe();
        let Forwarded { conditions, item: attrs, lints, .. } = &self.attrs;
        let (vis, task, docs) = (&function.vis, &function.sig.ident, &self.docs.item);
        // A parameter cannot shadow a unit struct, and so not a task, but it can shadow a function.
        let shadowed = shape.all_params().map(|param| {
            let mut name = param.name.clone();
            name.set_span(Span::call_site().located_at(Span::call_site()));
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
                #probe
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

            #[allow(clippy::new_ret_no_self)]
            impl #holder {
                #(#lints)*
                #(#attrs)*
                #sig #body
            }
        }
    }

    fn methods(&self) -> TokenStream {
        let Self { yadtq, private, name, function, shape, docs, .. } = self;
        let Function { vis, sig, .. } = function;
        let Docs { call: call_docs, delay: delay_docs, run: run_docs, .. } = docs;
        let must_use = &self.attrs.must_use;
        let (task, asyncness, returned) = (&sig.ident, &sig.asyncness, &sig.output);
        let names: Vec<_> = shape.params.iter().map(|param| &param.name).collect();
        let types: Vec<_> = shape.params.iter().map(|param| &param.ty).collect();
        let all_names: Vec<_> = shape.all_params().map(|param| &param.name).collect();
        let all_types = shape.all_params().map(|param| &param.ty);
        let output = quote!(<Self as #yadtq::Task>::Output);
        let pushes = shape.params.iter().map(|param| {
            let (wire, ty) = (param.wire_name(), &param.ty);
            let value = value_of(param);
            quote!(.push::<#ty>(#wire, #value))
        });
        let holder = holder();
        let wait = asyncness.map(|_| quote!(.await));
        quote! {
            #[allow(dead_code, deprecated, private_interfaces, clippy::all, clippy::pedantic, clippy::nursery)]
            impl #task {
                #call_docs
                #vis fn call(self, #(#names: #types),*) -> #yadtq::Call<#output> {
                    #yadtq::Call::of(&#yadtq::Task::definition(&self), #private::Writer::new(#name) #(#pushes)*)
                }

                #delay_docs
                #vis async fn delay(
                    self, #(#names: #types),*
                ) -> ::core::result::Result<#yadtq::TaskHandle<#output>, #yadtq::Error> {
                    #private::delay::<Self>(self.call(#(#names),*)).await
                }

                #run_docs
                #(#must_use)*
                #vis #asyncness fn run(self, #(#all_names: #all_types),*) #returned {
                    #holder::#task(#(#all_names),*) #wait
                }
            }
        }
    }

    fn task_impl(&self) -> TokenStream {
        let Self { yadtq, private, name, settings, function, shape, .. } = self;
        let task = &function.sig.ident;
        let output = self.output();
        let (context, args) = (hygienic("context", Span::call_site()), hygienic("args", Span::call_site()));
        let wires: Vec<_> = shape.params.iter().map(Param::wire_name).collect();
        let locals: Vec<_> = shape.params.iter().enumerate().map(local).collect();
        let types = shape.params.iter().map(|param| &param.ty);
        let mutability = (!wires.is_empty()).then(|| quote!(mut));
        let injected = shape.context.iter().map(|param| {
            let ty = &param.ty;
            quote!(<#ty as #private::Injected>::inject(#context))
        });
        let injected: Vec<_> = injected.collect();
        let contexts = injected.iter().map(|_| &context);
        let run = self.run(&contexts.clone().cloned().chain(locals.iter().cloned()).collect::<Vec<_>>());
        let kind = match function.sig.asyncness {
            Some(_) => quote!(Async),
            None => quote!(Blocking),
        };
        quote! {
            #[allow(deprecated)]
            impl #yadtq::Task for #task {
                type Output = #output;

                fn definition(&self) -> #yadtq::Definition {
                    #yadtq::Definition::new(#name, #private::Body::#kind(|#context, #mutability #args| {
                        #args.expect(&[#(#wires),*])?;
                        #(let #contexts = #injected;)*
                        #(let #locals = #args.take::<#types>(#wires)?;)*
                        ::core::result::Result::Ok(#run)
                    }))
                    #settings
                }
            }
        }
    }

    /// The run of one delivery, from the values of all parameters.
    fn run(&self, values: &[Ident]) -> TokenStream {
        let Self { private, function, shape, .. } = self;
        let (task, returned, holder) = (&function.sig.ident, &shape.returned, holder());
        let is_result = is_result();
        let finish = quote_spanned!(returned.span()=> #private::finish::<#returned, { #is_result }, _>);
        match function.sig.asyncness {
            Some(_) => quote_spanned! {task.span()=>
                ::std::boxed::Box::pin(async move { #finish(#holder::#task(#(#values),*).await) })
            },
            None => quote_spanned! {task.span()=>
                ::std::boxed::Box::new(move || #finish(#holder::#task(#(#values),*)))
            },
        }
    }

    /// The type of the result, named through the type checker: only it can see through an alias of `Result`.
    fn output(&self) -> TokenStream {
        let Self { private, shape, .. } = self;
        let returned = &shape.returned;
        let is_result = is_result();
        let (first, last) = ends(returned);
        let start = quote_spanned!(first=> <);
        let end = quote_spanned!(last=> Output);
        quote!(#start #private::Ret<#is_result> as #private::Returned<#returned>>::#end)
    }

    /// Whether the function returns a `Result`. A constant with a name, because rust-analyzer evaluates these only.
    fn probe(&self) -> TokenStream {
        let Self { private, shape, .. } = self;
        let (is_result, returned) = (is_result(), &shape.returned);
        let probe = quote_spanned!(returned.span()=> #private::Probe::<#returned>::IS);
        quote! {
            #[allow(unused_imports)]
            use #private::NotResult as _;
            const #is_result: bool = #probe;
        }
    }

    fn rejected_methods(&self) -> TokenStream {
        let Self { yadtq, function, shape, .. } = self;
        let Function { vis, sig, body, .. } = function;
        let attrs = &self.attrs.body;
        let (task, inputs, returned) = (&sig.ident, &sig.inputs, &sig.output);
        let (constness, asyncness, unsafety) = (&sig.constness, &sig.asyncness, &sig.unsafety);
        let (generics, _, bounds) = sig.generics.split_for_impl();
        let names: Vec<_> = shape.params.iter().map(|param| &param.name).collect();
        let types: Vec<_> = shape.params.iter().map(|param| &param.ty).collect();
        let output = quote!(<Self as #yadtq::Task>::Output);
        quote! {
            #[allow(unused)]
            impl #task {
                #vis fn call #generics (self, #(#names: #types),*) -> #yadtq::Call<#output> #bounds {
                    ::core::unreachable!()
                }

                #vis async fn delay #generics (
                    self, #(#names: #types),*
                ) -> ::core::result::Result<#yadtq::TaskHandle<#output>, #yadtq::Error> #bounds {
                    ::core::unreachable!()
                }

                #(#attrs)*
                #vis #constness #asyncness #unsafety fn run #generics (self, #inputs) #returned #bounds #body
            }
        }
    }

    fn rejected_impl(&self) -> TokenStream {
        let Self { yadtq, function, .. } = self;
        let task = &function.sig.ident;
        let output = match function.sig.generics.params.is_empty() {
            true => self.output(),
            false => quote!(()),
        };
        quote! {
            impl #yadtq::Task for #task {
                type Output = #output;

                fn definition(&self) -> #yadtq::Definition {
                    ::core::unreachable!()
                }
            }
        }
    }
}

fn holder() -> Ident {
    format_ident!("__YadtqFunction")
}

fn is_result() -> Ident {
    format_ident!("__YADTQ_IS_RESULT")
}

/// The variable that holds an argument. Its span is that of the parameter's type, for errors about the value.
fn local((position, param): (usize, &Param)) -> Ident {
    hygienic(&format!("argument_{position}"), param.ty.span())
}

/// A name that no name of the user can meet. The prefix is for unit structs and constants, which a binding of the
/// same name would match against, hygienic or not.
fn hygienic(name: &str, span: Span) -> Ident {
    Ident::new(&format!("__yadtq_{name}"), span.resolved_at(Span::mixed_site()))
}

/// `&name`, at the parameter's type.
fn value_of(param: &Param) -> TokenStream {
    let mut name = param.name.clone();
    name.set_span(param.ty.span().located_at(param.ty.span()).resolved_at(param.name.span()));
    quote_spanned!(param.ty.span()=> &#name)
}

/// Where a type begins and ends: `Span::join` gives only the first token on stable Rust.
fn ends(ty: &Type) -> (Span, Span) {
    let mut spans = ty.to_token_stream().into_iter().map(|token| token.span());
    let first = spans.next().unwrap_or_else(Span::call_site);
    (first, spans.last().unwrap_or(first))
}
