//! The options of `#[yadtq::task(..)]`: a table of them, and what the user chose.
//!
//! Everything in which one option differs from another is in its row of [`OPTIONS`]: how its value is read, an example,
//! the message for a wrong value, and what it sets in the generated code. A new option is a new row.

use std::{mem, ops::RangeInclusive, time::Duration};

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{
    Ident, LitStr, Path, Token,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    parse_quote,
};

use crate::{
    errors::Errors,
    values::{self, Value},
};

/// One option.
struct Row {
    name: &'static str,
    /// A value, as the user would write it.
    example: &'static str,
    takes: Takes,
    sets: Sets,
}

/// The values that an option takes, and the message for other values.
enum Takes {
    /// A string that passes the check.
    Text(fn(&str) -> Result<(), String>),
    /// A string that names a value of a type in `yadtq`.
    Named(fn(&LitStr) -> Result<TokenStream, String>),
    Duration(RangeInclusive<Duration>, &'static str),
    Number(RangeInclusive<u32>, &'static str),
    /// A path; the text describes it.
    Path(&'static str),
}

/// What an option sets in the `yadtq::Definition`.
enum Sets {
    /// A field, or a field of a field.
    Field(&'static str),
    /// A field, to what a method of it returns.
    Method(&'static str, &'static str),
    /// No field: the expansion reads the value itself.
    Nothing,
}

use Sets::{Field, Method, Nothing};
use Takes::{Duration as Time, Named, Number, Text};

const MAX_OPTION_DURATION: Duration = Duration::from_secs(365 * 24 * 3_600);
const NON_ZERO_DURATION: RangeInclusive<Duration> = Duration::from_nanos(1)..=Duration::MAX;
const RETRY_DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_OPTION_DURATION;
const RETRY_DELAY_MESSAGE: &str = "a delay between two attempts is 1ms to 365 days";

/// All options, in the order in which messages list them and the generated code sets them (a rate before its burst).
///
/// The ranges are those of `yadtq::Queue`, `yadtq::Retry`, `yadtq::Rate` and `yadtq::WorkerBuilder`, which check values that
/// are known only at run time.
#[rustfmt::skip]
const OPTIONS: [Row; 17] = [
    row("name", "\"mail.send\"", Text(values::check_name), Nothing),
    row("queue", "\"mail\"", Text(values::check_queue), Field("queue")),
    row("timeout", "\"30s\"", Time(NON_ZERO_DURATION, "a timeout of zero would end every run at once; remove the option for no limit"), Field("options.timeout")),
    row("soft_timeout", "\"25s\"", Time(NON_ZERO_DURATION, "a soft timeout of zero would ask every run to end at once; remove the option for none"), Field("options.soft_timeout")),
    row("result_ttl", "\"1h\"", Time(Duration::ZERO..=MAX_OPTION_DURATION, "results are kept for at most 365 days; store elsewhere what must be kept for longer"), Field("options.result_ttl")),
    row("expires", "\"10m\"", Time(NON_ZERO_DURATION, "a task that expires at once never runs; remove the option for no limit"), Field("expires")),
    row("unique", "\"1h\"", Time(Duration::from_secs(1)..=MAX_OPTION_DURATION, "calls are unique for 1 second to 365 days; remove the option if every call should make a task"), Field("unique")),
    row("priority", "\"high\"", Named(values::priority), Field("priority")),
    row("max_retries", "5", Number(0..=1_000, "a task has at most 1000 retries"), Method("options.retry", "max")),
    row("retry_base", "\"2s\"", Time(RETRY_DELAYS, RETRY_DELAY_MESSAGE), Method("options.retry", "base")),
    row("retry_cap", "\"1h\"", Time(RETRY_DELAYS, RETRY_DELAY_MESSAGE), Method("options.retry", "cap")),
    row("retry_if", "is_transient", Takes::Path("the path of a function from a reference to the error to bool, without quotes"), Nothing),
    row("rate_limit", "\"10/s\"", Named(values::rate), Field("limits.rate")),
    row("rate_burst", "20", Number(1..=100_000, "`rate_burst` is a number from 1 to 100000"), Method("limits", "burst")),
    row("max_running", "5", Number(1..=1_000_000, "`max_running` is a number from 1 to 1000000"), Field("limits.max_running")),
    row("limit_key", "\"user_id\"", Text(|_| Ok(())), Nothing),
    row("crate", "my_crate::yadtq", Takes::Path("a path without quotes"), Nothing),
];

const fn row(name: &'static str, example: &'static str, takes: Takes, sets: Sets) -> Row {
    Row { name, example, takes, sets }
}

/// The options that the user chose. An option with a wrong value has no value here.
pub(crate) struct Options(Vec<(String, Option<Value>)>);

impl Options {
    /// Reads all options. Wrong options are reported, and the others still read.
    pub(crate) fn read(tokens: &TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self(Vec::new());
        for tokens in split_at_commas(tokens.clone(), errors) {
            let Setting { key, value } = match Setting::parse.parse2(tokens) {
                Ok(setting) => setting,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            let name = key.to_string();
            if options.has(&name) {
                errors.at(&key, format_args!("option `{name}` is given twice; remove one of the two"));
                continue;
            }
            let value = read(&key, value).map_err(|error| errors.push(error)).ok();
            options.0.push((name, value));
        }
        options.check_together(tokens, errors);
        options
    }

    /// Checks combinations of options.
    fn check_together(&self, tokens: &TokenStream, errors: &mut Errors) {
        let duration = |name| self.get(name).and_then(Value::duration);
        if duration("retry_base").zip(duration("retry_cap")).is_some_and(|(base, cap)| base > cap) {
            errors.at(tokens, "`retry_base` is longer than `retry_cap`, the longest delay between two attempts");
        }
        if duration("soft_timeout").zip(duration("timeout")).is_some_and(|(soft, hard)| soft >= hard) {
            errors.at(tokens, "`soft_timeout` asks a run to end before its `timeout`, so it has to be shorter");
        }
        if self.get("rate_burst").is_some() && !self.has("rate_limit") {
            errors.at(
                tokens,
                "`rate_burst` is the number of tasks that start at once under a rate; add `rate_limit = \"10/s\"`",
            );
        }
        if self.get("limit_key").is_some() && !self.has("rate_limit") && !self.has("max_running") {
            errors.at(tokens, "`limit_key` gives each value of a parameter its own limits, but there is no limit; add `rate_limit` or `max_running`");
        }
    }

    /// Whether the option was given, even if its value is wrong.
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| given == name)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(given, _)| given == name)?.1.as_ref()
    }

    /// The value of an option that takes text.
    pub(crate) fn text(&self, name: &str) -> Option<&LitStr> {
        self.get(name).and_then(Value::text)
    }

    /// The function that decides whether an error is retried.
    pub(crate) fn retry_if(&self) -> Option<&Path> {
        self.get("retry_if").and_then(Value::path)
    }

    /// Where the generated code finds YADTQ.
    pub(crate) fn yadtq(&self) -> Path {
        self.get("crate").and_then(Value::path).cloned().unwrap_or_else(|| parse_quote!(::yadtq))
    }

    /// Statements that set what the user chose in a definition.
    pub(crate) fn settings(&self, definition: &Ident) -> TokenStream {
        let yadtq = self.yadtq();
        let given = OPTIONS.iter().filter_map(|row| Some((&row.sets, self.get(row.name)?.expression(&yadtq))));
        let tokens = |path: &str| path.parse::<TokenStream>().expect("the table has paths of fields");
        let setting = |(sets, value): (&Sets, TokenStream)| match sets {
            // Some fields are an `Option`; `into` sets both sorts.
            Field(field) => {
                let field = tokens(field);
                quote!(#definition.#field = ::core::convert::Into::into(#value);)
            }
            Method(field, method) => {
                let (field, method) = (tokens(field), format_ident!("{method}"));
                quote!(#definition.#field = #definition.#field.#method(#value);)
            }
            Nothing => TokenStream::new(),
        };
        given.map(setting).collect()
    }
}

/// Reads the value of one option.
fn read(key: &Ident, tokens: TokenStream) -> syn::Result<Value> {
    let Some(Row { name, example, takes, .. }) = OPTIONS.iter().find(|row| key == row.name) else {
        let names: Vec<_> = OPTIONS.iter().map(|row| format!("`{}`", row.name)).collect();
        let message = format!("unknown option `{key}`; the options are {}", names.join(", "));
        return Err(syn::Error::new_spanned(key, message));
    };
    let refused = |at: &dyn ToTokens, problem: String| syn::Error::new_spanned(at.to_token_stream(), problem);
    let other_type = |what: &str| refused(&tokens, format!("`{name}` takes {what}, such as `{name} = {example}`"));
    let text = || syn::parse2::<LitStr>(tokens.clone()).map_err(|_| other_type("a string literal"));
    match takes {
        Text(check) => {
            let literal = text()?;
            check(&literal.value()).map_err(|problem| refused(&literal, problem))?;
            Ok(Value::Text(literal))
        }
        Named(parse) => {
            let literal = text()?;
            parse(&literal).map(Value::OfYadtq).map_err(|problem| refused(&literal, problem))
        }
        Time(range, problem) => {
            let literal = text()?;
            let duration = values::duration(&literal.value()).map_err(|problem| refused(&literal, problem))?;
            if range.contains(&duration) {
                Ok(Value::Duration(duration))
            } else {
                Err(refused(&literal, (*problem).to_owned()))
            }
        }
        Number(range, problem) => {
            let literal: syn::LitInt = syn::parse2(tokens.clone()).map_err(|_| other_type("a whole number"))?;
            let number = literal.base10_parse().ok().filter(|number| range.contains(number));
            number.map(Value::Number).ok_or_else(|| refused(&literal, (*problem).to_owned()))
        }
        Takes::Path(what) => {
            Path::parse_mod_style.parse2(tokens.clone()).map(Value::Path).map_err(|_| other_type(what))
        }
    }
}

/// `key = value`.
struct Setting {
    key: Ident,
    value: TokenStream,
}

impl Setting {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let example = |name: &str| {
            let row = OPTIONS.iter().find(|row| row.name == name).unwrap_or(&OPTIONS[1]);
            format!("options are written `key = value`, such as `{} = {}`", row.name, row.example)
        };
        let key = input.call(Ident::parse_any).map_err(|error| syn::Error::new(error.span(), example("queue")))?;
        let equals: Option<Token![=]> = input.parse()?;
        let value: TokenStream = input.parse()?;
        if equals.is_none() || value.is_empty() {
            let message = format!("option `{key}` has no value; {}", example(&key.to_string()));
            return Err(syn::Error::new_spanned(key, message));
        }
        Ok(Self { key, value })
    }
}

/// The options between the commas. They are split first, so that a mistake in one option does not affect the others.
fn split_at_commas(tokens: TokenStream, errors: &mut Errors) -> Vec<TokenStream> {
    let mut options = Vec::new();
    let mut option = TokenStream::new();
    for token in tokens {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => match option.is_empty() {
                true => errors.at(comma, "there is no option before this comma; remove the comma"),
                false => options.push(mem::take(&mut option)),
            },
            other => option.extend([other]),
        }
    }
    if !option.is_empty() {
        options.push(option);
    }
    options
}
