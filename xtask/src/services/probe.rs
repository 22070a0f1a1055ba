//! Checks whether a server is ready for work. An open port does not prove it: both
//! servers listen before they serve. The requests are written by hand, because a
//! JVM or a client library for one request would cost more than the rest of xtask.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Longest wait for a connection, for a write, and for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Succeeds if any of the comma-separated `servers` answers a metadata request
/// with at least one live broker.
pub(super) fn kafka(servers: &str) -> Result<()> {
    // This code speaks neither TLS nor SASL; there, an open port has to do.
    let secured = std::env::var("YADTQ_KAFKA_CONF").is_ok_and(|conf| conf.contains("security.protocol"));
    any(servers, 9092, |mut stream| if secured { Ok(()) } else { ask_for_brokers(&mut stream) })
}

/// Succeeds if any of the servers in a `redis://` URL answers PING.
pub(super) fn redis(url: &str) -> Result<()> {
    let (scheme, rest) = url.split_once("://").context("not a URL such as redis://localhost:6379")?;
    let hosts = rest.split(['/', '?']).next().unwrap_or(rest);
    let hosts = hosts.rsplit('@').next().unwrap_or(hosts);
    let encrypted = scheme.starts_with("rediss");
    any(hosts, 6379, |mut stream| if encrypted { Ok(()) } else { ping(&mut stream) })
}

/// Returns the first success, else the last failure.
fn any(hosts: &str, default_port: u16, ask: impl Fn(TcpStream) -> Result<()>) -> Result<()> {
    let mut outcome = Err(anyhow::anyhow!("no server named"));
    for host in hosts.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        outcome = connect(host, default_port).and_then(&ask).with_context(|| host.to_owned());
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn connect(host: &str, default_port: u16) -> Result<TcpStream> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
    let mut failure = None;
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None => bail!("the name has no address"),
    }
}

/// Sends a metadata request of version 4, which every Kafka since 0.11 understands
/// and which returns the live brokers.
fn ask_for_brokers(stream: &mut (impl Read + Write)) -> Result<()> {
    const CORRELATION: [u8; 4] = *b"ping";
    const CLIENT: &[u8; 5] = b"yadtq";
    let mut request = Vec::new();
    request.extend([0, 3, 0, 4]); // Metadata, version
    request.extend(CORRELATION);
    request.extend([0, 5]);
    request.extend(CLIENT);
    request.extend([0, 0, 0, 0, 0]); // of no topic, and create none
    let size = u32::try_from(request.len())?;
    stream.write_all(&[&size.to_be_bytes()[..], &request].concat())?;

    // size, correlation id, throttle time, number of brokers
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).context("no answer to a Kafka request in time")?;
    ensure!(answer[4..8] == CORRELATION, "the server that answers isn't Kafka");
    ensure!(answer[12..16] != [0; 4], "Kafka has no live broker yet");
    Ok(())
}

fn ping(stream: &mut (impl Read + Write)) -> Result<()> {
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 64];
    let count = stream.read(&mut answer).context("no answer to PING in time")?;
    let answer = String::from_utf8_lossy(&answer[..count]);
    // A server that asks for a password is up; only clients need the password.
    ensure!(
        ["+PONG", "-NOAUTH"].iter().any(|good| answer.starts_with(good)),
        "answers PING with `{}`",
        answer.trim_end()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The port of a server that gives this answer to one request of any kind.
    fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 256]);
            stream.write_all(answer).unwrap();
        });
        port
    }

    #[test]
    fn redis_is_ready_when_it_says_pong() {
        assert!(redis(&format!("redis://127.0.0.1:{}", answering(b"+PONG\r\n"))).is_ok());
        assert!(redis(&format!("redis://user:p@ss@127.0.0.1:{}/3", answering(b"-NOAUTH x\r\n"))).is_ok());
        let loading = redis(&format!("redis://127.0.0.1:{}", answering(b"-LOADING x\r\n"))).unwrap_err();
        assert!(format!("{loading:#}").contains("-LOADING"), "{loading:#}");
        assert!(redis("127.0.0.1:6379").is_err());
    }

    #[test]
    fn kafka_is_ready_when_it_has_a_broker() {
        let one = answering(b"\0\0\0\x41ping\0\0\0\0\0\0\0\x01");
        assert!(kafka(&format!("127.0.0.1:{one}")).is_ok());
        let none = answering(b"\0\0\0\x41ping\0\0\0\0\0\0\0\0");
        assert!(kafka(&format!("127.0.0.1:{none}")).is_err());
        let other = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(format!("{:#}", kafka(&format!("127.0.0.1:{other}")).unwrap_err()).contains("isn't Kafka"));
    }

    #[test]
    fn one_of_several_is_enough_and_the_failure_names_the_server() {
        let port = answering(b"+PONG\r\n");
        assert!(redis(&format!("redis://127.0.0.1:1,127.0.0.1:{port}")).is_ok());
        assert!(format!("{:#}", redis("redis://127.0.0.1:1").unwrap_err()).starts_with("127.0.0.1:1: "));
    }
}
