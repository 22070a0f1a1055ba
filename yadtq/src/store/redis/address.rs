//! Addresses of servers.

use fred::types::config::{Config, Server, ServerConfig};

use crate::{core::secret::Secret, store::StoreError};

/// Reads an address.
pub(super) fn parse(url: &Secret) -> Result<Config, StoreError> {
    // fred quotes what it cannot read.
    let refuse = |detail: &str| StoreError::Address { url: url.address(), detail: url.hide_in(detail) };
    let scheme = url.expose().split_once("://").map(|(scheme, _)| scheme).ok_or_else(|| refuse("it has no scheme"))?;
    let encrypted = match scheme {
        "redis" | "redis-cluster" | "redis-sentinel" => false,
        "rediss" | "rediss-cluster" | "rediss-sentinel" => true,
        _ => return Err(refuse("its scheme is not redis, rediss, or one of them with -cluster or -sentinel")),
    };
    if encrypted && !cfg!(any(feature = "tls", feature = "tls-system")) {
        return Err(refuse("rediss needs the feature `tls` (or `tls-system`) of yadtq"));
    }
    let config = Config::from_url(url.expose()).map_err(|error| refuse(error.details()))?;
    Ok(Config { fail_fast: false, ..config })
}

/// How to connect to one node of a cluster.
pub(super) fn node(cluster: &Config, server: &Server) -> Config {
    Config { server: ServerConfig::Centralized { server: server.clone() }, ..cluster.clone() }
}
