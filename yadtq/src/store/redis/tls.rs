//! TLS towards Redis: whom to trust, and who this client is.

use std::{path::Path, sync::Arc};

use fred::{
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
    rustls_native_certs::load_native_certs,
    types::config::{TlsConfig, TlsConnector},
};

use super::tls_settings::TlsSettings;

/// What fred connects with. An error says which file or setting cannot be used.
pub(super) fn config(settings: &TlsSettings) -> Result<TlsConfig, String> {
    // Named, because another crate of the program may have brought a second one.
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(match &settings.ca {
        Some(file) => trusted(file)?,
        None => trusted_by_system()?,
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| format!("TLS: {error}"))?;
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| format!("TLS: {error}"))?;
    let verified = match &settings.server_name {
        None => versions.with_webpki_verifier(verifier),
        Some(name) => {
            let name =
                ServerName::try_from(name.clone()).map_err(|_| format!("server-name: `{name}` is no host name"))?;
            versions.dangerous().with_custom_certificate_verifier(Arc::new(OneName { name, verifier }))
        }
    };
    let client = match (&settings.cert, &settings.key) {
        (None, None) => verified.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let unusable = |error| format!("cert and key, {} and {}: {error}", cert.display(), key.display());
            verified.with_client_auth_cert(certificates("cert", cert)?, private_key(key)?).map_err(unusable)?
        }
        _ => return Err("cert and key go together".to_owned()),
    };
    Ok(TlsConnector::from(client).into())
}

fn trusted(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", file)? {
        roots.add(certificate).map_err(|error| format!("ca, {}: {error}", file.display()))?;
    }
    Ok(roots)
}

fn trusted_by_system() -> Result<RootCertStore, String> {
    let (mut roots, found) = (RootCertStore::empty(), load_native_certs());
    // A system may have some that nobody can read.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(format!("the certificates that the system trusts cannot be read ({why}); name a file with `ca`"));
    }
    Ok(roots)
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{setting}, {}: {error}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"there is no certificate in PEM format")) } else { Ok(found) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| format!("key, {}: {error}", file.display()))
}

/// Accepts certificates of one name, by whatever name or address the server was reached.
#[derive(Debug)]
struct OneName {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for OneName {
    fn verify_server_cert(
        &self, certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>], _: &ServerName<'_>, ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(certificate, chain, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
