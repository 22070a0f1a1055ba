//! Finds free ports for servers.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Below the ports that systems give to outgoing connections. So no connection can
/// take the port between this check and the server's bind, or while it restarts.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The preferred port if it is free, else another one.
pub(super) fn free(preferred: Option<u16>) -> Result<u16> {
    // Processes start their search at different ports, because two that search at
    // the same time would otherwise find the same one.
    let start = u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 12;
    let candidates = RANGE.cycle().skip(start.into()).take(RANGE.len());
    preferred
        .into_iter()
        .chain(candidates)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .with_context(|| format!("no free port between {} and {}", RANGE.start, RANGE.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_chosen() {
        let port = free(None).unwrap();
        assert_eq!(free(Some(port)).unwrap(), port);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(free(Some(port)).unwrap(), port);
    }
}
