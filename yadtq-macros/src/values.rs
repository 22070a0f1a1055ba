//! The values of options: how they are parsed, and how they are written in the generated code.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Ident, LitStr, Path};

/// A value that passed its checks.
pub(crate) enum Value {
    Text(LitStr),
    Duration(Duration),
    Number(u32),
    Path(Path),
    /// An expression that needs the path of `yadtq` in front.
    OfYadtq(TokenStream),
}

impl Value {
    pub(crate) fn text(&self) -> Option<&LitStr> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn duration(&self) -> Option<Duration> {
        if let Self::Duration(duration) = self { Some(*duration) } else { None }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        if let Self::Path(path) = self { Some(path) } else { None }
    }

    /// The value in the generated code.
    pub(crate) fn expression(&self, yadtq: &Path) -> TokenStream {
        match self {
            Self::Text(text) => text.to_token_stream(),
            Self::Duration(duration) => {
                let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
                quote!(::core::time::Duration::new(#seconds, #nanos))
            }
            Self::Number(number) => number.to_token_stream(),
            Self::Path(path) => path.to_token_stream(),
            Self::OfYadtq(expression) => quote!(#yadtq::#expression),
        }
    }
}

const MAX_NAME_BYTES: usize = 200;
const MAX_QUEUE_BYTES: usize = 100;
const MAX_STARTS_PER_SECOND: u64 = 10_000;
const RESERVED_QUEUES: [&str; 4] = ["dead", "delayed", "events", "control"];

/// Fails if a task cannot have this name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("a task's name cannot be empty; remove the option to use the function's name".to_owned()),
        1..=MAX_NAME_BYTES => Ok(()),
        len => {
            Err(format!("a task's name has at most {MAX_NAME_BYTES} bytes, this one has {len}; choose a shorter one"))
        }
    }
}

/// Fails if a queue cannot have this name.
pub(crate) fn check_queue(queue: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if RESERVED_QUEUES.contains(&queue) {
        return Err(format!("queue name `{queue}` is reserved; choose another than {}", RESERVED_QUEUES.join(", ")));
    }
    if queue.is_empty() || queue.len() > MAX_QUEUE_BYTES || queue.starts_with('-') || !queue.chars().all(allowed) {
        return Err(format!(
            "queue name `{queue}` must have 1 to {MAX_QUEUE_BYTES} lowercase letters, digits and `-`, and not start with `-`"
        ));
    }
    Ok(())
}

/// Parses a duration such as `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("not a duration: {error}; write it as `30s`, `1m 30s` or `500ms`"))
}

/// Parses a priority, and returns its variant of `yadtq::Priority`.
pub(crate) fn priority(literal: &LitStr) -> Result<TokenStream, String> {
    let variant = match literal.value().as_str() {
        "high" => "High",
        "normal" => "Normal",
        "low" => "Low",
        other => return Err(format!("there is no priority `{other}`; choose `high`, `normal` or `low`")),
    };
    let variant = Ident::new(variant, literal.span());
    Ok(quote!(Priority::#variant))
}

/// Parses a rate such as `10/s`, and returns a call of the constructor of `yadtq::Rate` that makes it.
pub(crate) fn rate(literal: &LitStr) -> Result<TokenStream, String> {
    let text = literal.value();
    let no_rate = || format!("`{text}` is not a rate; write it as `10/s`, `100/m` or `5/h`");
    let (count, unit) = text.split_once('/').ok_or_else(no_rate)?;
    let (constructor, seconds) = match unit.trim() {
        "s" => ("per_second", 1),
        "m" => ("per_minute", 60),
        "h" => ("per_hour", 3_600),
        _ => return Err(no_rate()),
    };
    let count: u64 = count.trim().parse().map_err(|_| no_rate())?;
    if count == 0 {
        return Err("with a rate of zero no task would start; remove the option for no limit".to_owned());
    }
    if count > MAX_STARTS_PER_SECOND * seconds {
        return Err(format!("a rate is at most {MAX_STARTS_PER_SECOND}/s; remove the option for no limit"));
    }
    let constructor = Ident::new(constructor, literal.span());
    Ok(quote!(Rate::#constructor(#count)))
}
