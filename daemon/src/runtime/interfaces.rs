//! This machine's addresses, as the system knows them. Nothing is sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether an interface has this address. Only the system's word for a foreign one counts: a port of 0 is never taken.
pub fn is_own(address: IpAddr) -> bool {
    let bound = UdpSocket::bind(SocketAddr::new(address, 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// The address from which packets to `to` would be sent.
pub fn source_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How this process reaches itself at `listen`, whatever addresses the machine has; `bound_port` stands for port 0.
pub fn own_endpoint(listen: SocketAddr, bound_port: u16) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, if listen.port() == 0 { bound_port } else { listen.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()) && is_own(Ipv4Addr::UNSPECIFIED.into()));
        // Reserved for documentation.
        assert!(!is_own("203.0.113.7".parse().unwrap()));
        assert_eq!(source_towards("127.0.0.1:9".parse().unwrap()), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_process_reaches_itself_without_its_advertised_address() {
        let endpoint = |listen: &str| own_endpoint(listen.parse().unwrap(), 9).to_string();
        assert_eq!(endpoint("0.0.0.0:7401"), "127.0.0.1:7401");
        assert_eq!(endpoint("[::]:7401"), "[::1]:7401");
        assert_eq!(endpoint("10.0.0.2:0"), "10.0.0.2:9");
    }
}
