//! Reads the function, and checks that it can be a task.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{
    Attribute, FnArg, GenericParam, Ident, LitStr, Pat, PatType, ReturnType, Signature, Token, Type, Visibility,
    ext::IdentExt,
    parse::{Parse, ParseStream},
    parse_quote_spanned,
    spanned::Spanned,
    token::Brace,
};

use crate::{errors::Errors, types};

/// The annotated function. Its body stays a group of tokens: only the compiler has to parse it.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = Attribute::parse_outer(input)?;
        let vis = input.parse()?;
        if !starts_function(&input.fork()) {
            return Err(input.error("`#[yadtq::task]` belongs on a function: write it above `async fn` or `fn`"));
        }
        let sig = input.parse()?;
        if !input.peek(Brace) {
            return Err(input.error("a task needs a body: write `{ .. }` after its signature"));
        }
        let TokenTree::Group(group) = input.parse()? else { unreachable!("a brace begins a group") };
        Ok(Self { attrs, vis, sig, body: without_macro(group) })
    }
}

/// The braces of a body. A `$body:block` of `macro_rules!` is a group around them.
fn without_macro(group: Group) -> Group {
    match (group.delimiter(), group.stream().into_iter().next()) {
        (Delimiter::None, Some(TokenTree::Group(inner))) => without_macro(inner),
        _ => group,
    }
}

fn starts_function(input: ParseStream<'_>) -> bool {
    loop {
        if input.peek(Token![fn]) {
            return true;
        }
        let skipped = input.parse::<Token![const]>().is_ok()
            || input.parse::<Token![async]>().is_ok()
            || input.parse::<Token![unsafe]>().is_ok()
            || input.parse::<Token![extern]>().is_ok()
            || input.parse::<LitStr>().is_ok();
        if !skipped {
            return false;
        }
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { attrs, vis, sig, body } = self;
        tokens.extend(quote!(#(#attrs)* #vis #sig #body));
    }
}

/// What the expansion needs from the signature.
pub(crate) struct Shape {
    /// The leading `Context`, which the worker provides.
    pub(crate) context: Option<Param>,
    /// The shared values that follow it, which the worker provides as well.
    pub(crate) states: Vec<Param>,
    /// The parameters that are sent.
    pub(crate) params: Vec<Param>,
    /// The type that the function returns, `()` if it names none.
    pub(crate) returned: Type,
}

/// One parameter.
pub(crate) struct Param {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
}

impl Param {
    /// The parameter's name in JSON: `type` for `r#type`.
    pub(crate) fn wire_name(&self) -> String {
        self.name.unraw().to_string()
    }
}

impl Shape {
    /// All parameters of the function, in order.
    pub(crate) fn all_params(&self) -> impl Iterator<Item = &Param> {
        self.context.iter().chain(&self.states).chain(&self.params)
    }

    /// Checks the signature. If there are errors, the shape is as complete as possible.
    pub(crate) fn check(sig: &Signature, errors: &mut Errors) -> Self {
        check_qualifiers(sig, errors);
        check_generics(sig, errors);
        let mut shape = Self { context: None, states: Vec::new(), params: Vec::new(), returned: returned(sig, errors) };
        for (position, input) in sig.inputs.iter().enumerate() {
            match input {
                FnArg::Receiver(receiver) => errors.at(
                    receiver,
                    "a task is a free function: move it out of the `impl`, and take this value as a parameter of its \
                     own type",
                ),
                FnArg::Typed(input) => {
                    check_attributes(input, errors);
                    shape.add(position, input, errors);
                }
            }
        }
        shape
    }

    fn add(&mut self, position: usize, input: &PatType, errors: &mut Errors) {
        let ty = (*input.ty).clone();
        // What the worker provides is not sent, so it needs no name.
        let provided_name = |name: String, errors: &mut Errors| match &*input.pat {
            Pat::Wild(_) => format_ident!("{name}"),
            _ => param_name(position, input, errors),
        };
        if types::is_context(&ty) {
            if position > 0 {
                errors.at(&ty, context_misplaced(self.context.is_some()));
            } else {
                self.context = Some(Param { name: provided_name("context".to_owned(), errors), ty });
            }
        } else if types::is_state(&ty) {
            if !self.params.is_empty() {
                errors.at(
                    &ty,
                    "a `State` comes from the worker, not from the caller; put it after the `Context` and before the \
                     parameters that are sent",
                );
            } else {
                let name = provided_name(format!("state_{position}"), errors);
                self.states.push(Param { name, ty });
            }
        } else {
            types::check_argument(&input.ty, errors);
            self.params.push(Param { name: param_name(position, input, errors), ty });
        }
    }
}

fn check_qualifiers(sig: &Signature, errors: &mut Errors) {
    if let Some(token) = &sig.constness {
        errors.at(token, "a task runs on a worker, never at compile time; remove `const`");
    }
    if let Some(token) = &sig.unsafety {
        errors.at(token, "workers call tasks from safe code; remove `unsafe`, and use `unsafe { .. }` in the body");
    }
    if let Some(token) = &sig.abi {
        errors.at(token, "workers call tasks from Rust; remove `extern`");
    }
    if let Some(token) = &sig.variadic {
        errors.at(token, "a task has a fixed number of parameters; take a `Vec` instead of `...`");
    }
}

fn check_generics(sig: &Signature, errors: &mut Errors) {
    for param in &sig.generics.params {
        match param {
            GenericParam::Lifetime(lifetime) => errors.at(
                lifetime,
                "a task's arguments come from another process, so they cannot borrow; remove the lifetime, and take \
                 owned types",
            ),
            GenericParam::Type(param) => errors.at(
                param,
                format_args!(
                    "a task cannot be generic: the worker must know what to read for `{}`; write the type out, or make \
                     a task for each type",
                    param.ident
                ),
            ),
            GenericParam::Const(param) => errors.at(
                param,
                format_args!("a task cannot be generic; take `{}` as a parameter, or make it a constant", param.ident),
            ),
        }
    }
    if let Some(clause) = &sig.generics.where_clause {
        errors.at(clause, "a task is not generic, so there is nothing to bound; remove the `where` clause");
    }
}

fn check_attributes(input: &PatType, errors: &mut Errors) {
    for attr in &input.attrs {
        if attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr") {
            errors.at(
                attr,
                "a task's parameters must be the same wherever it is compiled, senders and workers rely on it; put \
                 `#[cfg]` on two versions of the function, or take an `Option`",
            );
        }
    }
}

fn param_name(position: usize, input: &PatType, errors: &mut Errors) -> Ident {
    if let Pat::Ident(pat) = &*input.pat
        && pat.by_ref.is_none()
        && pat.subpat.is_none()
    {
        return pat.ident.clone();
    }
    errors.at(
        &input.pat,
        "a parameter is sent under its name, so it cannot be a pattern; write a plain name, and destructure the value in \
         the body",
    );
    format_ident!("argument_{position}", span = input.pat.span())
}

fn context_misplaced(has_one: bool) -> &'static str {
    match has_one {
        true => "the task has a `Context` already; remove this one",
        false => "the `Context` comes from the worker, not from the caller; make it the first parameter",
    }
}

/// What the function returns; `()` if a task cannot return that.
fn returned(sig: &Signature, errors: &mut Errors) -> Type {
    match &sig.output {
        ReturnType::Type(_, ty) if types::check_output(ty, errors) => (**ty).clone(),
        _ => parse_quote_spanned!(sig.ident.span()=> ()),
    }
}
