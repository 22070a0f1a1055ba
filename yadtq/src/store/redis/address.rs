//! Addresses of servers, and how TLS is used towards them.

use std::path::PathBuf;

use fred::types::config::{Config, Server, ServerConfig};

use crate::{core::secret::Secret, store::StoreError};

/// The settings of TLS. What is not set is as usual: who the system trusts, no certificate of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// A file with the certificates of those that sign the server's, in PEM format.
    pub(super) ca: Option<PathBuf>,
    /// Files with this client's certificate and its key.
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the one in the URL.
    pub(super) server_name: Option<String>,
}

impl TlsSettings {
    /// Reads settings; a later one replaces an earlier one. An error names what is unknown.
    pub(crate) fn of(settings: impl IntoIterator<Item = (String, Secret)>) -> Result<Self, String> {
        let mut of = Self::default();
        for (setting, value) in settings {
            let value = value.expose().to_owned();
            match &*setting {
                "ca" => of.ca = Some(value.into()),
                "cert" => of.cert = Some(value.into()),
                "key" => of.key = Some(value.into()),
                "server-name" => of.server_name = Some(value),
                _ => return Err(format!("there is no setting `{setting}`; there are ca, cert, key and server-name")),
            }
        }
        Ok(of)
    }
}

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
