//! Which URLs, hosts and addresses may be asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;

use crate::address::{Class, class};
use crate::error::DialError;

/// Whose connections these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The Gateway's, to upstreams: loopback and private networks are where upstreams mostly live.
    Upstreams,
    /// The STS's and the API's, to token endpoints, issuers and sinks: public addresses, private ones only by name.
    Outside,
    /// Between our own services, as configured by the operator.
    Internal,
}

/// The rules of one client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    profile: Profile,
    hosts: Arc<[String]>,
    private_hosts: Arc<[String]>,
    own_ports: Arc<[u16]>,
}

/// A URL that passed the guard's rules for URLs and hosts; its addresses are judged when dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `https`, or `http`.
    pub https: bool,
    /// The host without brackets, lower-cased.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The address, where the host is one.
    pub literal: Option<IpAddr>,
}

impl Guard {
    /// The Gateway's: `hosts` is `UPSTREAM_HOST_ALLOWLIST` (empty: any), `own_ports` are the listeners of this process.
    pub fn upstreams(hosts: Vec<String>, own_ports: Vec<u16>) -> Self {
        Self { profile: Profile::Upstreams, hosts: hosts.into(), private_hosts: Arc::default(), own_ports: own_ports.into() }
    }

    /// The STS's and the API's: `private_hosts` is `CARACAL_PRIVATE_EGRESS_HOSTS`.
    pub fn outside(private_hosts: Vec<String>) -> Self {
        Self { profile: Profile::Outside, hosts: Arc::default(), private_hosts: private_hosts.into(), own_ports: Arc::default() }
    }

    /// Between our own services.
    pub fn internal() -> Self {
        Self { profile: Profile::Internal, hosts: Arc::default(), private_hosts: Arc::default(), own_ports: Arc::default() }
    }

    /// Judges a URL: scheme, host form, user info, lists, and the address where the host is one.
    pub fn target(&self, url: &Uri) -> Result<Target, DialError> {
        let https = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && self.profile != Profile::Outside => false,
            _ => return Err(DialError::Url("scheme")),
        };
        let authority = url.authority().ok_or(DialError::Url("host"))?;
        if authority.as_str().contains('@') {
            return Err(DialError::Url("user info"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if https {
                    443
                } else {
                    80
                }
            }
            // `host:` and a port over 65535 are no authority of ours.
            Some(_) => authority.port_u16().filter(|p| *p != 0).ok_or(DialError::Url("port"))?,
            None => return Err(DialError::Url("host")),
        };
        let host = authority.host().to_ascii_lowercase();
        let literal = literal(&host)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !self.hosts.is_empty() && !self.hosts.contains(&host) {
            return Err(DialError::Host);
        }
        let target = Target { https, host, port, literal };
        if let Some(address) = literal {
            self.judge(&target, address)?;
        }
        Ok(target)
    }

    /// Judges one address of a target.
    pub fn judge(&self, target: &Target, address: IpAddr) -> Result<(), DialError> {
        let class = class(address);
        let allowed = match (self.profile, class) {
            (Profile::Internal, _) | (_, Class::Public) | (Profile::Upstreams, Class::Loopback | Class::Private) => true,
            (Profile::Outside, Class::Private) => self.private_hosts.contains(&target.host),
            _ => false,
        };
        if !allowed {
            return Err(DialError::Address(class));
        }
        if self.own_ports.contains(&target.port) && is_local(address) {
            return Err(DialError::Own);
        }
        Ok(())
    }
}

/// The address a host is written as. Only dotted quads and bracketed IPv6 are addresses; every other notation of numbers, which a
/// resolver would understand, is refused.
fn literal(host: &str) -> Result<Option<IpAddr>, DialError> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|i| i.parse::<Ipv6Addr>().ok());
        return address.map(|a| Some(a.into())).ok_or(DialError::Url("host"));
    }
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        return Ok(Some(v4.into()));
    }
    let labels: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
    let fine = |l: &&str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let last = labels.last().copied().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
    if host.len() > 253 || !labels.iter().all(fine) || numeric {
        return Err(DialError::Url("host"));
    }
    Ok(None)
}

/// Whether an address is one of this machine: only those can be bound.
fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(guard: &Guard, url: &str) -> String {
        match url.parse::<Uri>().map_err(|_| DialError::Url("parse")).and_then(|u| guard.target(&u)) {
            Ok(target) => format!("{}:{}", target.host, target.port),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn hosts_are_names_or_plain_addresses() {
        let guard = Guard::upstreams(Vec::new(), Vec::new());
        for (url, wanted) in [
            ("http://127.0.0.1/x", "127.0.0.1:80"),
            ("https://API.example/x", "api.example:443"),
            ("http://[::1]:8080/", "::1:8080"),
            ("http://a_b.example.:81", "a_b.example.:81"),
            ("ftp://a/", "Url(\"scheme\")"),
            ("/a", "Url(\"scheme\")"),
            ("http://u:p@a/", "Url(\"user info\")"),
            ("http://a:/", "Url(\"port\")"),
            ("http://a:0/", "Url(\"port\")"),
            ("http://a:65536/", "Url(\"port\")"),
        ] {
            assert_eq!(verdict(&guard, url), wanted, "{url}");
        }
        for odd in ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "127.0.0.1.", "0x7f000001", "1.2.3.4.5", "a..b", "a.0x10"] {
            assert_eq!(verdict(&guard, &format!("http://{odd}/")), "Url(\"host\")", "{odd}");
        }
    }

    #[test]
    fn the_two_profiles() {
        let up = Guard::upstreams(Vec::new(), Vec::new());
        let out = Guard::outside(vec!["intern.example".into()]);
        for (address, upstream, outside) in [
            ("127.0.0.1", true, false),
            ("10.1.2.3", true, false),
            ("100.64.0.1", true, false),
            ("169.254.169.254", false, false),
            ("0.0.0.0", false, false),
            ("[::ffff:169.254.169.254]", false, false),
            ("[64:ff9b::a9fe:a9fe]", false, false),
            ("[::ffff:10.0.0.1]", true, false),
            ("[fd00:ec2::254]", false, false),
            ("100.100.100.200", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("8.8.8.8", true, true),
        ] {
            assert_eq!(verdict(&up, &format!("http://{address}/")).contains("Address"), !upstream, "{address} upstream");
            assert_eq!(verdict(&out, &format!("https://{address}/")).contains("Address"), !outside, "{address} outside");
        }
        assert_eq!(verdict(&out, "http://8.8.8.8/"), "Url(\"scheme\")", "outside speaks TLS only");
        let named = out.target(&"https://intern.example/".parse().unwrap()).unwrap();
        assert!(out.judge(&named, "10.0.0.1".parse().unwrap()).is_ok(), "private by name");
        assert!(out.judge(&named, "127.0.0.1".parse().unwrap()).is_err(), "loopback never");
        assert!(out.judge(&named, "100.100.100.200".parse().unwrap()).is_err(), "metadata never");
    }

    #[test]
    fn lists_and_own_ports() {
        let listed = Guard::upstreams(vec!["api.example".into()], vec![8081]);
        assert_eq!(verdict(&listed, "http://API.EXAMPLE:9/"), "api.example:9");
        assert_eq!(verdict(&listed, "http://x.api.example/"), "Host");
        let own = Guard::upstreams(Vec::new(), vec![8081]);
        assert_eq!(verdict(&own, "http://127.0.0.1:8081/"), "Own");
        assert_eq!(verdict(&own, "http://[::ffff:127.0.0.1]:8081/"), "Own");
        assert_eq!(verdict(&own, "http://127.0.0.1:8082/"), "127.0.0.1:8082");
        assert_eq!(verdict(&own, "http://8.8.8.8:8081/"), "8.8.8.8:8081", "another machine's port is its own");
    }
}
