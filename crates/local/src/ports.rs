//! Free loopback ports.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

/// Below the range from which Linux takes ports for outgoing connections (32768 up), so that a port chosen now is
/// still free when its server starts.
const RANGE: Range<u16> = 15_000..32_000;

/// `n` different ports that nothing listens on at the moment.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when no such ports are found.
pub fn free(n: usize) -> io::Result<Vec<u16>> {
    free_of(RANGE, n)
}

fn free_of(range: Range<u16>, n: usize) -> io::Result<Vec<u16>> {
    let mut tried = BTreeSet::new();
    let mut held = Vec::with_capacity(n);
    while held.len() < n {
        if tried.len() >= range.len().min(4000) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {n} free ports in {range:?}")));
        }
        let port = rand::random_range(range.clone());
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
    fn ports_differ() {
        assert_eq!(free(20).unwrap().iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        // Held until the end: whether any other port stays free is up to the rest of the machine.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(free_of(port..port + 1, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_in_use_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
