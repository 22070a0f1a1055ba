//! Sorts the function's attributes: some belong to the task, some to the function inside it.

use syn::{Attribute, Meta, Token, punctuated::Punctuated};

/// The function's attributes, by the items to which they are applied.
#[derive(Default)]
pub(crate) struct Forwarded<'a> {
    /// `#[cfg]`, for all generated items.
    pub(crate) conditions: Vec<&'a Attribute>,
    /// Documentation and deprecation, for the struct.
    pub(crate) item: Vec<&'a Attribute>,
    /// Lint levels such as `#[allow]`, for the struct and the function.
    pub(crate) lints: Vec<&'a Attribute>,
    /// `#[must_use]`, for the method `run`.
    pub(crate) must_use: Vec<&'a Attribute>,
    /// All others, such as `#[tracing::instrument]`, for the function.
    pub(crate) body: Vec<&'a Attribute>,
}

/// Sorts attributes, and keeps their order.
pub(crate) fn sort(attrs: &[Attribute]) -> Forwarded<'_> {
    let mut sorted = Forwarded::default();
    for attr in attrs {
        let place = match deciding_name(attr).as_str() {
            "cfg" => &mut sorted.conditions,
            "doc" | "deprecated" => &mut sorted.item,
            "allow" | "warn" | "deny" | "forbid" => &mut sorted.lints,
            "must_use" => &mut sorted.must_use,
            _ => &mut sorted.body,
        };
        place.push(attr);
    }
    sorted
}

/// The attribute's name, or for `#[cfg_attr(.., doc = "..")]` the name of the attribute that it adds.
fn deciding_name(attr: &Attribute) -> String {
    let mut path = attr.path().clone();
    if path.is_ident("cfg_attr")
        && let Ok(parts) = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
        && let Some(added) = parts.into_iter().nth(1)
    {
        path = added.path().clone();
    }
    path.get_ident().map(ToString::to_string).unwrap_or_default()
}
