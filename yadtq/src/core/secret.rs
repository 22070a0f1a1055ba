//! Texts that no log, error or `{:?}` may show.

use std::fmt;

/// A text that may be a password. It has no `Display`, and `{:?}` hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the server that it is meant for.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Another text, such as a library's error, without this one.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "***") }
    }

    /// This text as a URL, without its user, its password and its parameters, so that it can be shown.
    pub(crate) fn address(&self) -> String {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), &*self.0),
        };
        let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
        format!("{scheme}{}", hosts.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(("key", secret.clone()))), "*** Some((\"key\", ***))");
        assert_eq!(secret.hide_in("invalid value \"hunter2\" for a key"), "invalid value \"***\" for a key");
        assert_eq!(Secret::default().hide_in("as it was"), "as it was");
    }

    #[test]
    fn a_url_is_shown_without_what_is_secret_in_it() {
        let shown = |url: &str| Secret::new(url).address();
        assert_eq!(shown("redis://user:s@cr?t@host:6379/1"), "redis://host:6379/1");
        assert_eq!(shown("redis-sentinel://h1,h2?sentinelServiceName=m&sentinelPassword=p"), "redis-sentinel://h1,h2");
        assert_eq!(shown("redis://host"), "redis://host");
        assert_eq!(shown(":secret@host"), "host");
    }
}
