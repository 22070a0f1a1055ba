//! Writes what stands in for a task when its function cannot be one: the nearest thing that compiles, so that the
//! code that uses the task is not blamed as well.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::{
    attr::Options,
    expand::{Expansion, lists},
    signature::{Function, Shape},
};

/// The stand-in.
pub(crate) fn task(options: &Options, function: &Function, shape: &Shape) -> TokenStream {
    if function.sig.receiver().is_some() {
        // This is inside of an `impl`, where a struct cannot be.
        return function.to_token_stream();
    }
    let expansion = Expansion::new(options, function, shape);
    let (probe, output) = match function.sig.generics.params.is_empty() {
        true => (expansion.probe(), expansion.output()),
        // The type may name a parameter, which means nothing outside of the function.
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
