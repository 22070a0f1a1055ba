//! Addresses of servers, and how TLS is used towards them.

use fred::types::config::{Config, Server, ServerConfig};

use super::tls_settings::TlsSettings;
use crate::{core::secret::Secret, store::StoreError};

/// Reads an address.
pub(super) fn parse(url: &Secret, tls: &TlsSettings) -> Result<Config, StoreError> {
    // fred quotes what it cannot read.
    let refuse = |detail: &str| StoreError::Address { url: url.address(), detail: url.hide_in(detail) };
    let (scheme, rest) = url.expose().split_once("://").ok_or_else(|| refuse("it has no scheme"))?;
    let (encrypted, plain) = match scheme {
        "redis" | "redis-cluster" | "redis-sentinel" => (false, scheme),
        "rediss" => (true, "redis"),
        "rediss-cluster" => (true, "redis-cluster"),
        "rediss-sentinel" => (true, "redis-sentinel"),
        _ => return Err(refuse("its scheme is not redis, rediss, or one of them with -cluster or -sentinel")),
    };
    if !encrypted && *tls != TlsSettings::default() {
        return Err(refuse("there are settings of TLS, but its scheme is not rediss"));
    }
    // fred would set TLS up by itself, in its own way.
    let plain = Secret::new(format!("{plain}://{rest}"));
    let config = Config::from_url(plain.expose()).map_err(|error| refuse(&plain.hide_in(error.details())))?;
    let config = Config { fail_fast: false, ..config };
    if encrypted { with_tls(config, tls).map_err(|detail| refuse(&detail)) } else { Ok(config) }
}

#[cfg(feature = "redis-tls")]
fn with_tls(config: Config, settings: &TlsSettings) -> Result<Config, String> {
    Ok(Config { tls: Some(super::tls::config(settings)?), ..config })
}

#[cfg(not(feature = "redis-tls"))]
fn with_tls(_: Config, _: &TlsSettings) -> Result<Config, String> {
    Err("rediss needs one of the features `tls`, `tls-system` and `redis-tls` of yadtq".to_owned())
}

/// How to connect to one node of a cluster.
pub(super) fn node(cluster: &Config, server: &Server) -> Config {
    Config { server: ServerConfig::Centralized { server: server.clone() }, ..cluster.clone() }
}
