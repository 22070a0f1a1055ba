//! What a task says of its limits.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::args;
use crate::{core::limits::Rate, unique, wire::envelope::Args};

/// The limits of a task.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// How often it starts.
    pub(crate) rate: Option<Rate>,
    /// How many of it run at once.
    pub(crate) max_running: Option<u32>,
    /// The parameter that tells its limits apart, and which of them it is.
    pub(crate) key: Option<(&'static str, usize)>,
}

impl Limits {
    /// More at once are a mistake.
    pub(crate) const MOST_RUNNING: u32 = 1_000_000;
    /// Longer keys are hashed.
    const LONGEST: usize = 64;

    pub(crate) const fn new() -> Self {
        Self { rate: None, max_running: None, key: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rate.is_none() && self.max_running.is_none()
    }

    /// The field that is wrong, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(rate) = self.rate {
            rate.check()
                .map_err(|(field, problem)| (if field == "burst" { "rate_burst" } else { "rate_limit" }, problem))?;
        }
        match self.max_running {
            Some(0) => Err(("max_running", "none of it would run; leave it out for no limit".to_owned())),
            Some(most) if most > Self::MOST_RUNNING => {
                Err(("max_running", format!("must be at most {}; leave it out for no limit", Self::MOST_RUNNING)))
            }
            _ => Ok(()),
        }
    }

    /// The name of the limit that these arguments fall under.
    pub(crate) fn name(&self, task: &str, args: &Args) -> Arc<str> {
        // The first colon after that ends the task's name.
        let task = task.replace('%', "%25").replace(':', "%3A");
        let Some((parameter, position)) = self.key else { return format!("task:{task}").into() };
        // What is missing is the `None` of an `Option`.
        let value = args::find(args.as_str(), parameter, position).unwrap_or(RawValue::NULL);
        let text = value.get();
        if text.len() > Self::LONGEST || text.starts_with(['[', '{']) {
            format!("task:{task}:{}", unique::of_arguments(value)).into()
        } else {
            format!("task:{task}:{text}").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::Envelope;

    fn name(args: &str) -> String {
        let record = format!(r#"{{"task-id":"t","task":"a","args":{args}}}"#).into_bytes().into();
        let envelope = Envelope::read(&record).unwrap();
        Limits { key: Some(("user", 1)), ..Limits::new() }.name("mail:send", &envelope.args).to_string()
    }

    #[test]
    fn limits_are_told_apart_by_the_argument() {
        assert_eq!(name("[1,17,3]"), "task:mail%3Asend:17");
        assert_eq!(name(r#"{"x":1,"user":17}"#), "task:mail%3Asend:17");
        assert_eq!(name(r#"[1,"17"]"#), "task:mail%3Asend:\"17\"");
        assert_eq!([name("[1]"), name("{}"), name("[1,null]")], [(); 3].map(|()| "task:mail%3Asend:null".to_owned()));
        assert_eq!(name(r#"[1,{"a":1,"b":2}]"#), name(r#"[1,{ "b":2, "a":1 }]"#));
        assert_ne!(name(r#"[1,{"a":1}]"#), name(r#"[1,{"a":2}]"#));
        let long = |end: &str| name(&format!(r#"[1,"{}{end}"]"#, "x".repeat(900)));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").len() < 100);
    }
}
