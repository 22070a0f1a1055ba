//! The environment variables that name the servers to other programs.

use std::collections::BTreeMap;
use std::fmt;

/// Its `Display` is lines that a shell can evaluate.
#[derive(Default)]
pub(crate) struct Variables(BTreeMap<&'static str, String>);

impl Variables {
    pub(crate) fn set(&mut self, name: &'static str, value: String) {
        self.0.insert(name, value);
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Display for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(name, value)| writeln!(f, "export {name}={}", quoted(value)))
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_set() {
        let value = "/a b/$HOME/it's\"`x`";
        let mut variables = Variables::default();
        variables.set("YADTQ_SOME", value.to_owned());
        let script = format!("{variables}printf %s \"$YADTQ_SOME\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), value);
    }

    #[test]
    fn plain_values_stay_readable() {
        assert_eq!(quoted("redis://127.0.0.1:6379"), "redis://127.0.0.1:6379");
        assert_eq!(quoted(""), "''");
    }
}
