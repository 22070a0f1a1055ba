//! Checks that types can be sent to another process, as far as their names show it.

use quote::ToTokens;
use syn::{GenericArgument, PathArguments, PathSegment, Type, TypeImplTrait, TypeReference, visit::Visit};

use crate::errors::Errors;

/// Whether the type is written `Context`. A macro sees names only, not types.
pub(crate) fn is_context(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == "Context" && segment.arguments.is_none())
}

/// Whether the type is written `State<T>`.
pub(crate) fn is_state(ty: &Type) -> bool {
    let is_one = |segment: &PathSegment| match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.len() == 1,
        _ => false,
    };
    last_segment(ty).is_some_and(|segment| segment.ident == "State" && is_one(segment))
}

/// Checks the type of an argument.
pub(crate) fn check_argument(ty: &Type, errors: &mut Errors) {
    if let Type::Reference(reference) = ty
        && is_context(&reference.elem)
    {
        errors.at(ty, "take the `Context` by value: it is cheap to clone");
        return;
    }
    if let Type::Reference(reference) = ty
        && is_state(&reference.elem)
    {
        errors.at(ty, "take the `State` by value: it is cheap to clone, and derefs to the shared value");
        return;
    }
    let Found { references, impl_traits } = Found::in_type(ty);
    for reference in references {
        let message = "a task's arguments come from another process, so they cannot borrow; take an owned type";
        errors.at(reference, format_args!("{message}: `{}`", owned(reference)));
    }
    for impl_trait in impl_traits {
        let message = "a worker must know which type to read, so an argument cannot be an `impl Trait`";
        errors.at(impl_trait, format_args!("{message}; write the type out"));
    }
}

/// Checks the type that a task returns. Returns whether a task can return it.
pub(crate) fn check_output(ty: &Type, errors: &mut Errors) -> bool {
    if let Type::Never(never) = ty {
        errors.at(never, "a task must end, because its outcome is recorded; return `()`");
        return false;
    }
    let impl_traits = Found::in_type(ty).impl_traits;
    let references = sent(ty).map(Found::in_type).unwrap_or_default().references;
    for reference in &references {
        let message = "what a task returns goes to another process, so it cannot borrow; return an owned type";
        errors.at(reference, format_args!("{message}: `{}`", owned(reference)));
    }
    for impl_trait in &impl_traits {
        let message = "a caller must know which type to read, so a task cannot return an `impl Trait`";
        errors.at(impl_trait, format_args!("{message}; write the type out"));
    }
    references.is_empty() && impl_traits.is_empty()
}

/// The part of a returned type that is sent as JSON. The error of a `Result` is not: it is sent as text, and may be a
/// `&'static str`. Other names may be aliases, which only the compiler can check.
fn sent(ty: &Type) -> Option<&Type> {
    let Some(PathSegment { ident, arguments: PathArguments::AngleBracketed(arguments) }) = last_segment(ty) else {
        return Some(ty);
    };
    match (ident.to_string().as_str(), arguments.args.first()) {
        ("Result", Some(GenericArgument::Type(output))) => Some(output),
        ("Box" | "Option" | "Vec", _) => Some(ty),
        _ => None,
    }
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(ty) => ty.path.segments.last(),
        Type::Paren(ty) => last_segment(&ty.elem),
        // A `$ty:ty` of `macro_rules!` is such a group.
        Type::Group(ty) => last_segment(&ty.elem),
        _ => None,
    }
}

/// What to write instead of a reference.
fn owned(reference: &TypeReference) -> String {
    match &*reference.elem {
        Type::Slice(slice) => format!("Vec<{}>", slice.elem.to_token_stream()),
        elem => match elem.to_token_stream().to_string() {
            text if text == "str" => "String".to_owned(),
            text if text == "Path" => "PathBuf".to_owned(),
            text => text,
        },
    }
}

/// The parts of a type that cannot be sent.
#[derive(Default)]
struct Found<'a> {
    references: Vec<&'a TypeReference>,
    impl_traits: Vec<&'a TypeImplTrait>,
}

impl<'a> Found<'a> {
    fn in_type(ty: &'a Type) -> Self {
        let mut found = Self::default();
        found.visit_type(ty);
        found
    }
}

// Neither method looks inside: one error for the outermost part is enough.
impl<'a> Visit<'a> for Found<'a> {
    fn visit_type_reference(&mut self, reference: &'a TypeReference) {
        self.references.push(reference);
    }

    fn visit_type_impl_trait(&mut self, impl_trait: &'a TypeImplTrait) {
        self.impl_traits.push(impl_trait);
    }
}
