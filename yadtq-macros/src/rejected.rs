//! Generates a replacement for a task whose function has mistakes. It compiles as far as possible, so that the compiler does
//! not report errors in code that uses the task.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::{
    expand::{Expansion, lists},
    options::Options,
    signature::{Function, Shape},
};

/// The replacement.
pub(crate) fn task(options: &Options, function: &Function, shape: &Shape) -> TokenStream {
    if function.sig.receiver().is_some() {
        // The function is inside an `impl`, where there can be no struct.
        return function.to_token_stream();
    }
    let expansion = Expansion::new(options, function, shape);
    let (probe, output) = match function.sig.generics.params.is_empty() {
        true => (expansion.probe(), expansion.output()),
        // The type may name a generic parameter, which does not exist outside the function.
        false => (
            TokenStream::new(),
            quote!(
                type Output = ();
            ),
        ),
    };
    expansion.item(&[probe, methods(&expansion), task_impl(&expansion, &output)])
}

fn methods(expansion: &Expansion<'_>) -> TokenStream {
    let Expansion { function, shape, attrs, yadtq, .. } = expansion;
    let Function { vis, sig, body, .. } = function;
    let attrs = &attrs.body;
    let (task, inputs, returned) = (&sig.ident, &sig.inputs, &sig.output);
    let (constness, asyncness, unsafety) = (&sig.constness, &sig.asyncness, &sig.unsafety);
    let (_, params) = lists(shape.params.iter());
    let (generics, bounds) = (&sig.generics, &sig.generics.where_clause);
    let output = quote!(<Self as #yadtq::Task>::Output);
    quote! {
        #[allow(unused)]
        impl #task {
            #vis fn call #generics (self, #params) -> #yadtq::Call<#output> #bounds {
                ::core::unreachable!()
            }

            #vis async fn delay #generics (
                self, #params
            ) -> ::core::result::Result<#yadtq::TaskHandle<#output>, #yadtq::Error> #bounds {
                ::core::unreachable!()
            }

            #vis fn handle(self, client: &#yadtq::Client, id: #yadtq::TaskId) -> #yadtq::TaskHandle<#output> {
                ::core::unreachable!()
            }

            #(#attrs)*
            #vis #constness #asyncness #unsafety fn run #generics (self, #inputs) #returned #bounds #body
        }
    }
}

fn task_impl(expansion: &Expansion<'_>, output: &TokenStream) -> TokenStream {
    let Expansion { function, yadtq, .. } = expansion;
    let task = &function.sig.ident;
    quote! {
        impl #yadtq::Task for #task {
            #output

            fn definition(&self) -> #yadtq::Definition {
                ::core::unreachable!()
            }
        }
    }
}
