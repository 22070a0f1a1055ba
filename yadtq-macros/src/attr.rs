//! Reads the options in `#[yadtq::task(..)]`.

use std::{mem, time::Duration};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Ident, LitInt, LitStr, Path, Token,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    parse_quote,
};

use crate::errors::Errors;

/// What the user chose; an option that is absent or wrong has its default.
pub(crate) struct Options {
    /// The name on the wire. Default: the function's.
    pub(crate) name: Option<String>,
    /// Where calls go by default.
    pub(crate) queue: Option<String>,
    /// How long one run may take.
    pub(crate) timeout: Option<Duration>,
    /// How long results are kept; zero: not at all.
    pub(crate) result_ttl: Option<Duration>,
    /// How long after it was sent it may start.
    pub(crate) expires: Option<Duration>,
    /// How long calls are unique by their arguments.
    pub(crate) unique: Option<Duration>,
    /// How soon it runs beside others: a variant of `yadtq::Priority`.
    pub(crate) priority: Option<Ident>,
    /// How often it is tried again.
    pub(crate) max_retries: Option<u32>,
    /// The longest wait before the first retry.
    pub(crate) retry_base: Option<Duration>,
    /// The longest wait before any retry.
    pub(crate) retry_cap: Option<Duration>,
    /// Tells which errors are worth a retry.
    pub(crate) retry_if: Option<Path>,
    /// How often it starts.
    pub(crate) rate_limit: Option<Rate>,
    /// How many of it start at once.
    pub(crate) rate_burst: Option<u32>,
    /// How many of it run at once.
    pub(crate) max_running: Option<u32>,
    /// The parameter each value of which has limits of its own.
    pub(crate) limit_key: Option<LitStr>,
    /// Where the generated code finds YADTQ.
    pub(crate) yadtq: Path,
}

/// So many starts in a time: a constructor of `yadtq::Rate`.
pub(crate) struct Rate {
    pub(crate) count: u64,
    pub(crate) per: Ident,
}

const NAME_BYTES: usize = 200;
const QUEUE_BYTES: usize = 100;
const LONGEST_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);
const MOST_RETRIES: u32 = 1_000;
/// The same limits as `yadtq::Rate` and the worker's builder.
const MOST_PER_SECOND: u64 = 10_000;
const MOST_BURST: u32 = 100_000;
const MOST_RUNNING: u32 = 1_000_000;
const RESERVED_QUEUES: [&str; 4] = ["dead", "delayed", "events", "control"];

const NO_FUNCTION: &str = "`retry_if` takes the path of a function from a reference to the error to bool, without quotes, such as `retry_if = is_transient`";
const NO_CRATE: &str = "`crate` takes a path without quotes, such as `crate = my_crate::yadtq`";

impl Options {
    /// Reads all options, past any that are wrong.
    pub(crate) fn read(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self {
            name: None,
            queue: None,
            timeout: None,
            result_ttl: None,
            expires: None,
            unique: None,
            priority: None,
            max_retries: None,
            retry_base: None,
            retry_cap: None,
            retry_if: None,
            rate_limit: None,
            rate_burst: None,
            max_running: None,
            limit_key: None,
            yadtq: parse_quote!(::yadtq),
        };
        let mut seen = Vec::<String>::new();
        let all = tokens.clone();
        for tokens in split_at_commas(tokens, errors) {
            let Setting { key, value } = match Setting::parse.parse2(tokens) {
                Ok(setting) => setting,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            let name = key.to_string();
            if seen.contains(&name) {
                errors.at(&key, format_args!("option `{name}` is given twice; remove one of the two"));
                continue;
            }
            if let Err(error) = options.set(&key, value) {
                errors.push(error);
            }
            seen.push(name);
        }
        if options.retry_base.zip(options.retry_cap).is_some_and(|(base, cap)| base > cap) {
            errors.at(&all, "`retry_base` is longer than `retry_cap`, the longest wait between two attempts");
        }
        if options.rate_burst.is_some() && !seen.iter().any(|name| name == "rate_limit") {
            errors.at(&all, "`rate_burst` says how many start at once under a rate; add `rate_limit = \"10/s\"`");
        }
        if options.limit_key.is_some() && !seen.iter().any(|name| name == "rate_limit" || name == "max_running") {
            errors.at(&all, "`limit_key` tells limits apart, and there is none; add `rate_limit` or `max_running`");
        }
        options
    }

    fn set(&mut self, key: &Ident, value: TokenStream) -> syn::Result<()> {
        match key.to_string().as_str() {
            "name" => self.name = Some(name(&text(key, value, "mail.send")?)?),
            "queue" => self.queue = Some(queue(&text(key, value, "mail")?)?),
            "timeout" => self.timeout = Some(timeout(&text(key, value, "30s")?)?),
            "result_ttl" => self.result_ttl = Some(result_ttl(&text(key, value, "1h")?)?),
            "expires" => self.expires = Some(expires(&text(key, value, "10m")?)?),
            "unique" => self.unique = Some(unique(&text(key, value, "1h")?)?),
            "priority" => self.priority = Some(priority(&text(key, value, "high")?)?),
            "max_retries" => self.max_retries = Some(max_retries(key, value)?),
            "retry_base" => self.retry_base = Some(wait(&text(key, value, "1s")?)?),
            "retry_cap" => self.retry_cap = Some(wait(&text(key, value, "10m")?)?),
            "retry_if" => self.retry_if = Some(path(value, NO_FUNCTION)?),
            "rate_limit" => self.rate_limit = Some(rate(&text(key, value, "10/s")?)?),
            "rate_burst" => self.rate_burst = Some(number(key, value, 20, MOST_BURST)?),
            "max_running" => self.max_running = Some(number(key, value, 5, MOST_RUNNING)?),
            "limit_key" => self.limit_key = Some(text(key, value, "user_id")?),
            "crate" => self.yadtq = path(value, NO_CRATE)?,
            unknown => {
                let message = format!(
                    "unknown option `{unknown}`; the options are `name`, `queue`, `timeout`, `result_ttl`, `expires`, `unique`, `priority`, `max_retries`, `retry_base`, `retry_cap`, `retry_if`, `rate_limit`, `rate_burst`, `max_running`, `limit_key`, `crate`"
                );
                return Err(syn::Error::new_spanned(key, message));
            }
        }
        Ok(())
    }
}

/// `key = value`.
struct Setting {
    key: Ident,
    value: TokenStream,
}

impl Setting {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = input.call(Ident::parse_any).map_err(|error| {
            syn::Error::new(error.span(), "options are written `key = value`, such as `queue = \"mail\"`")
        })?;
        let equals: Option<Token![=]> = input.parse()?;
        let value: TokenStream = input.parse()?;
        if equals.is_none() || value.is_empty() {
            let example = match key.to_string().as_str() {
                "name" => "name = \"mail.send\"",
                "timeout" => "timeout = \"30s\"",
                "expires" => "expires = \"10m\"",
                "unique" => "unique = \"1h\"",
                "priority" => "priority = \"high\"",
                "result_ttl" => "result_ttl = \"1h\"",
                "max_retries" => "max_retries = 5",
                "retry_base" => "retry_base = \"1s\"",
                "retry_cap" => "retry_cap = \"10m\"",
                "retry_if" => "retry_if = is_transient",
                "rate_limit" => "rate_limit = \"10/s\"",
                "rate_burst" => "rate_burst = 20",
                "max_running" => "max_running = 5",
                "limit_key" => "limit_key = \"user_id\"",
                "crate" => "crate = my_crate::yadtq",
                _ => "queue = \"mail\"",
            };
            let message =
                format!("option `{key}` has no value; options are written `key = value`, such as `{example}`");
            return Err(syn::Error::new_spanned(key, message));
        }
        Ok(Self { key, value })
    }
}

/// The options between the commas. A mistake in one of them can't reach the others then.
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

fn text(key: &Ident, value: TokenStream, example: &str) -> syn::Result<LitStr> {
    syn::parse2(value.clone()).map_err(|_| {
        syn::Error::new_spanned(value, format!("`{key}` takes a string literal, such as `{key} = \"{example}\"`"))
    })
}

fn name(literal: &LitStr) -> syn::Result<String> {
    let name = literal.value();
    let problem = match name.len() {
        0 => "a task's name cannot be empty; remove the option to name it as the function".to_owned(),
        1..=NAME_BYTES => return Ok(name),
        len => format!("a task's name has at most {NAME_BYTES} bytes, this one has {len}; choose a shorter one"),
    };
    Err(syn::Error::new_spanned(literal, problem))
}

/// The same rules as `yadtq::Queue`, which the worker and the client apply to names known only at run time.
fn queue(literal: &LitStr) -> syn::Result<String> {
    let queue = literal.value();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let problem = if RESERVED_QUEUES.contains(&queue.as_str()) {
        format!("queue name `{queue}` is reserved; choose another than {}", RESERVED_QUEUES.join(", "))
    } else if queue.is_empty() || queue.len() > QUEUE_BYTES || queue.starts_with('-') || !queue.chars().all(allowed) {
        format!(
            "queue name `{queue}` must have 1 to {QUEUE_BYTES} lowercase letters, digits and `-`, and not start with `-`"
        )
    } else {
        return Ok(queue);
    };
    Err(syn::Error::new_spanned(literal, problem))
}

fn timeout(literal: &LitStr) -> syn::Result<Duration> {
    let problem = "a timeout of zero would end every run at once; remove the option for no limit";
    duration_within(literal, problem, |timeout| !timeout.is_zero())
}

fn expires(literal: &LitStr) -> syn::Result<Duration> {
    let problem = "a task that expires at once never runs; remove the option for no limit";
    duration_within(literal, problem, |time| !time.is_zero())
}

fn unique(literal: &LitStr) -> syn::Result<Duration> {
    let problem = "calls are unique for 1 second to 365 days; remove the option if they need not be";
    duration_within(literal, problem, |ttl| (Duration::from_secs(1)..=LONGEST_TTL).contains(ttl))
}

fn priority(literal: &LitStr) -> syn::Result<Ident> {
    let variant = match literal.value().as_str() {
        "high" => "High",
        "normal" => "Normal",
        "low" => "Low",
        other => {
            let problem = format!("there is no priority `{other}`; choose `high`, `normal` or `low`");
            return Err(syn::Error::new_spanned(literal, problem));
        }
    };
    Ok(Ident::new(variant, literal.span()))
}

fn result_ttl(literal: &LitStr) -> syn::Result<Duration> {
    let problem = "results are kept for at most 365 days; store what has to last elsewhere";
    duration_within(literal, problem, |ttl| *ttl <= LONGEST_TTL)
}

/// The same limits as `yadtq::Retry`, which the client and the worker apply to policies known only at run time.
fn max_retries(key: &Ident, value: TokenStream) -> syn::Result<u32> {
    let literal = whole(key, value, 5)?;
    match literal.base10_parse::<u32>() {
        Ok(retries) if retries <= MOST_RETRIES => Ok(retries),
        _ => {
            let problem = format!("a task is tried again at most {MOST_RETRIES} times; more would never end");
            Err(syn::Error::new_spanned(literal, problem))
        }
    }
}

fn rate(literal: &LitStr) -> syn::Result<Rate> {
    let text = literal.value();
    let refused = |problem: &str| syn::Error::new_spanned(literal, problem);
    let read = text.split_once('/').and_then(|(count, unit)| {
        let (per, seconds) = match unit.trim() {
            "s" => ("per_second", 1),
            "m" => ("per_minute", 60),
            "h" => ("per_hour", 3_600),
            _ => return None,
        };
        Some((count.trim().parse::<u64>().ok()?, per, seconds))
    });
    match read {
        None => Err(refused(&format!("`{text}` is no rate; write it as `10/s`, `100/m` or `5/h`"))),
        Some((0, ..)) => Err(refused("a rate of zero would let nothing start; remove the option for no limit")),
        Some((count, _, seconds)) if count > MOST_PER_SECOND * seconds => {
            Err(refused(&format!("a rate is at most {MOST_PER_SECOND}/s; remove the option for no limit")))
        }
        Some((count, per, _)) => Ok(Rate { count, per: Ident::new(per, literal.span()) }),
    }
}

fn number(key: &Ident, value: TokenStream, example: u32, most: u32) -> syn::Result<u32> {
    let literal = whole(key, value, example)?;
    match literal.base10_parse::<u32>() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(syn::Error::new_spanned(literal, format!("`{key}` is a number from 1 to {most}"))),
    }
}

fn whole(key: &Ident, value: TokenStream, example: u32) -> syn::Result<LitInt> {
    syn::parse2(value.clone()).map_err(|_| {
        syn::Error::new_spanned(&value, format!("`{key}` takes a whole number, such as `{key} = {example}`"))
    })
}

fn wait(literal: &LitStr) -> syn::Result<Duration> {
    match duration(literal)? {
        wait if wait < Duration::from_millis(1) || wait > LONGEST_TTL => {
            Err(syn::Error::new_spanned(literal, "a wait between two attempts is between 1ms and 365 days"))
        }
        wait => Ok(wait),
    }
}

/// A duration that fits, or else the problem.
fn duration_within(literal: &LitStr, problem: &str, fits: impl Fn(&Duration) -> bool) -> syn::Result<Duration> {
    let duration = duration(literal)?;
    if fits(&duration) { Ok(duration) } else { Err(syn::Error::new_spanned(literal, problem)) }
}

fn duration(literal: &LitStr) -> syn::Result<Duration> {
    humantime::parse_duration(&literal.value()).map_err(|error| {
        let problem = format!("not a duration: {error}; write it as `30s`, `1m 30s` or `500ms`");
        syn::Error::new_spanned(literal, problem)
    })
}

fn path(value: TokenStream, otherwise: &str) -> syn::Result<Path> {
    Path::parse_mod_style.parse2(value.clone()).map_err(|_| syn::Error::new_spanned(value, otherwise))
}
