//! A Redis that takes encrypted connections alone, from clients with a certificate of its own authority.

use std::{path::Path, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use yadtq::{Client, ClientBuilder};
use yadtq_tests::{
    namespace,
    process::Env,
    servers::{self, Redis},
    tasks,
};

use super::worker_with;

const WAIT: Duration = Duration::from_secs(60);
/// The name in the server's certificate. No host has it, and clients connect to an address.
const NAME: &str = "redis.internal";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Writes a certificate of this name and its key as `<file>.pem` and `<file>.key`.
fn issue(authority: &Authority, name: &str, dir: &Path, file: &str) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).expect("signed");
    std::fs::write(dir.join(format!("{file}.pem")), certificate.pem()).expect("written");
    std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_certificates_is_used_and_strangers_are_refused() {
    let (dir, authority, port) = (tempfile::tempdir().expect("a directory"), authority("ours"), servers::free_port());
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).expect("written");
    std::fs::write(dir.path().join("other-ca.pem"), self::authority("another").pem()).expect("written");
    issue(&authority, NAME, dir.path(), "server");
    issue(&authority, "client", dir.path(), "client");
    let path = |file: &str| dir.path().join(file).to_str().expect("UTF-8").to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let port_text = port.to_string();
    let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let _server = Redis::start_on(port, &[&["--port", "0", "--tls-port", &port_text][..], &files].concat());

    let (url, namespace) = (format!("rediss://127.0.0.1:{port}"), namespace("encrypted"));
    let builder = || Client::builder().kafka(servers::kafka()).redis(&url).namespace(&namespace);
    let settings = |ca: &str| [("ca", path(ca)), ("cert", path("client.pem")), ("key", path("client.key"))];
    let with = |builder: ClientBuilder, ca: &str| {
        settings(ca).into_iter().fold(builder, |builder, (setting, file)| builder.redis_tls(setting, file))
    };
    let client = with(builder(), "ca.pem").redis_tls("server-name", NAME).build().await.expect("a client");
    let settings = settings("ca.pem").map(|(setting, file)| format!("{setting}={file}"));
    let env = Env::new(&servers::kafka(), &url, &namespace);
    let worker = worker_with(&env.with("YADTQ_REDIS_TLS", &format!("{},server-name={NAME}", settings.join(","))));
    worker.event("worker_connected", |_| true).await;
    let sum = tasks::add.call(1, 2).send(&client).await.expect("acknowledged");
    assert_eq!(sum.wait(WAIT).await.expect("a result"), 3);

    // What the certificate has to prove: the authority, and the name.
    for (stranger, why) in [
        (with(builder(), "other-ca.pem").redis_tls("server-name", NAME), "UnknownIssuer"),
        (with(builder(), "ca.pem"), "NotValidForName"),
    ] {
        let client = stranger.build().await.expect("a client");
        let error = client.admin().ping().await.redis.expect_err("it trusts another").to_string();
        assert!(error.contains(why), "{error}");
    }
    for (setting, value, names) in [
        ("ca", path("none.pem"), "none.pem"),
        ("ca", path("client.key"), "no certificate"),
        ("cert", path("client.pem"), "cert and key go together"),
        ("server-name", "no name".to_owned(), "no name"),
        ("tls", "on".to_owned(), "ca, cert, key and server-name"),
    ] {
        let error = builder().redis_tls(setting, value).build().await.expect_err("it is wrong").to_string();
        assert!(error.contains(names), "{error}");
    }
    let plain = Client::builder().kafka(servers::kafka()).redis("redis://localhost").redis_tls("ca", ca);
    let error = plain.build().await.expect_err("it is not encrypted").to_string();
    assert!(error.contains("rediss"), "{error}");
}
