//! The attribute macro of YADTQ.

mod attr;
mod docs;
mod errors;
mod expand;
mod forward;
mod signature;

use proc_macro::TokenStream;

use self::{
    attr::Options,
    errors::Errors,
    signature::{Function, Shape},
};

/// task
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options.into(), item.into()).into()
}

fn expand(options: proc_macro2::TokenStream, item: proc_macro2::TokenStream) -> proc_macro2::TokenStream {
    let mut errors = Errors::default();
    let options = Options::read(options, &mut errors);
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            return [item, errors.into_tokens()].into_iter().collect();
        }
    };
    let mut unfit = Errors::default();
    let shape = Shape::check(&function.sig, &mut unfit);
    let expansion = match unfit.is_empty() {
        true => expand::task(&options, &function, &shape),
        false => expand::rejected(&options, &function, &shape),
    };
    [expansion, errors.into_tokens(), unfit.into_tokens()].into_iter().collect()
}
