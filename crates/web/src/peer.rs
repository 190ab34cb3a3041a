//! Who is at the other end of the connection.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The connection a request came on; in the extensions of every request that a [`crate::Listener`] accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end's address.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

impl Peer {
    /// The client's address: the connection's, or behind a trusted proxy the last one in `X-Forwarded-For`, which is what our own
    /// proxy wrote (anything before it came from outside).
    pub fn client(&self, headers: &HeaderMap, trust_proxy: bool) -> IpAddr {
        let forwarded = || {
            let line = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
            line.rsplit(',').next()?.trim().parse().ok()
        };
        trust_proxy.then(forwarded).flatten().unwrap_or_else(|| self.address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxy_is_believed() {
        let peer = Peer { address: "10.0.0.1:5".parse().unwrap(), tls: false };
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6".parse().unwrap());
        headers.append("x-forwarded-for", "7.7.7.7, 203.0.113.9".parse().unwrap());
        assert_eq!(peer.client(&headers, false).to_string(), "10.0.0.1");
        assert_eq!(peer.client(&headers, true).to_string(), "203.0.113.9");
        headers.append("x-forwarded-for", "nonsense".parse().unwrap());
        assert_eq!(peer.client(&headers, true).to_string(), "10.0.0.1");
    }
}
