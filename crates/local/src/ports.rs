//! Free loopback ports.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, TcpListener},
};

/// Below the range from which Linux takes ports for outgoing connections (32768 up), so that a port chosen now is
/// still free when its server starts.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// `n` different ports that nothing listens on at the moment.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when no such ports are found.
pub fn free(n: usize) -> io::Result<Vec<u16>> {
    let mut tried = BTreeSet::new();
    let mut held = Vec::with_capacity(n);
    while held.len() < n {
        if tried.len() >= 4000 {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {n} free ports in {RANGE:?}")));
        }
        let port = rand::random_range(RANGE);
        if tried.insert(port)
            && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        {
            held.push((port, listener));
        }
    }
    Ok(held.iter().map(|(port, _)| *port).collect())
}

/// True when nothing listens on `port` of the loopback address.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports = free(20).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 20);
        assert!(ports.into_iter().all(is_free));
    }

    #[test]
    fn a_port_in_use_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
