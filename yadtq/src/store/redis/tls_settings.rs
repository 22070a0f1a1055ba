//! The settings of TLS towards Redis, as users give them.

use std::path::PathBuf;

use crate::core::secret::Secret;

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
