//! The limits of a task.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::args;
use crate::{
    core::limits::Rate,
    wire::{digest, envelope::Args},
};

/// The limits of a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The largest rate at which tasks start.
    pub rate: Option<Rate>,
    /// The largest number of tasks that run at once.
    pub max_running: Option<u32>,
    /// The parameter by whose value tasks are limited, and its position among the parameters.
    pub key: Option<(&'static str, usize)>,
}

impl Limits {
    /// The largest `max_running` that is accepted. A larger number is probably a mistake.
    pub(crate) const MAX_RUNNING_CEILING: u32 = 1_000_000;
    /// Longest value that is part of a limit's name, in bytes of JSON. Longer values are hashed.
    const MAX_PLAIN_KEY_BYTES: usize = 64;

    pub(crate) const fn new() -> Self {
        Self { rate: None, max_running: None, key: None }
    }

    /// Sets how many tasks may start at once under the rate.
    #[must_use]
    pub fn burst(self, burst: u32) -> Self {
        Self { rate: self.rate.map(|rate| rate.burst(burst)), ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rate.is_none() && self.max_running.is_none()
    }

    /// The error is the field that is wrong, and the problem.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(rate) = self.rate {
            rate.check()
                .map_err(|(field, problem)| (if field == "burst" { "rate_burst" } else { "rate_limit" }, problem))?;
        }
        match self.max_running {
            Some(0) => Err(("max_running", "no task would run; leave it out for no limit".to_owned())),
            Some(most) if most > Self::MAX_RUNNING_CEILING => Err((
                "max_running",
                format!("must be at most {}; leave it out for no limit", Self::MAX_RUNNING_CEILING),
            )),
            _ => Ok(()),
        }
    }

    /// The name of the limit that these arguments fall under.
    pub(crate) fn name(&self, task: &str, args: &Args) -> Arc<str> {
        // Escaped, so that the next colon ends the task's name.
        let task = task.replace('%', "%25").replace(':', "%3A");
        let Some((parameter, position)) = self.key else { return format!("task:{task}").into() };
        // A missing argument is the `None` of an `Option`.
        let value = args::find(args, parameter, position).unwrap_or(RawValue::NULL);
        let text = digest::canonical(value);
        if text.len() > Self::MAX_PLAIN_KEY_BYTES || text.starts_with(['[', '{']) {
            format!("task:{task}:{}", digest::of_arguments(value)).into()
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
    fn every_value_of_the_key_has_its_own_limit() {
        assert_eq!(name("[1,17,3]"), "task:mail%3Asend:17");
        assert_eq!(name(r#"{"x":1,"user":17}"#), "task:mail%3Asend:17");
        assert_eq!(name(r#"[1,"17"]"#), "task:mail%3Asend:\"17\"");
        assert_eq!([name("[1]"), name("{}"), name("[1,null]")], [(); 3].map(|()| "task:mail%3Asend:null".to_owned()));
        assert_eq!(name("[1,17.0]"), "task:mail%3Asend:17");
        assert_eq!(name(r#"[1,"M\u00fcller"]"#), "task:mail%3Asend:\"M\u{fc}ller\"");
        assert_eq!(name(r#"[1,{"a":1,"b":2}]"#), name(r#"[1,{ "b":2, "a":1 }]"#));
        assert_ne!(name(r#"[1,{"a":1}]"#), name(r#"[1,{"a":2}]"#));
        let long = |end: &str| name(&format!(r#"[1,"{}{end}"]"#, "x".repeat(900)));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").len() < 100);
    }
}
