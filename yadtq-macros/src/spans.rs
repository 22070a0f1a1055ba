//! Names that cannot clash, and tokens that the compiler's messages point at.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;

/// A local name that none of the user's can meet. The prefix is for unit structs and constants: a binding of their
/// name would be a pattern that matches them, hygienic or not.
pub(crate) fn hygienic(name: &str, span: Span) -> Ident {
    Ident::new(&format!("__yadtq_{name}"), span.resolved_at(Span::mixed_site()))
}

/// The same tokens, with the same meaning, for the compiler to find at `span`.
pub(crate) fn located_at(span: Span, tokens: &impl ToTokens) -> TokenStream {
    let move_there = |mut token: TokenTree| {
        token.set_span(token.span().located_at(span));
        token
    };
    tokens.to_token_stream().into_iter().map(move_there).collect()
}

/// Where tokens begin and end: on stable Rust, `Span::join` gives only the begin.
pub(crate) fn ends(tokens: &impl ToTokens) -> (Span, Span) {
    let mut spans = tokens.to_token_stream().into_iter().map(|token| token.span());
    let first = spans.next().unwrap_or_else(Span::call_site);
    (first, spans.last().unwrap_or(first))
}
