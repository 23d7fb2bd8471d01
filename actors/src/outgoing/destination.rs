//! Where a webhook may be: at a public address, reached over TLS. What a name resolves to is checked as well, so that a
//! name cannot point into our own network (server-side request forgery).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Bytes of a URL.
pub const URL_BYTES_MAX: usize = 2_048;

/// What is allowed beyond public addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Loopback addresses, and there plain HTTP: in a development engine.
    pub loopback: bool,
}

/// Why a URL is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Too long.
    #[error("the URL has more than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Not a URL.
    #[error("not a URL: {0}")]
    Unreadable(#[from] url::ParseError),
    /// Neither `https`, nor `http` to where that is allowed.
    #[error("the URL must begin with https://")]
    Scheme,
    /// No host.
    #[error("the URL names no host")]
    NoHost,
    /// A user name or password.
    #[error("the URL must not hold a user name or a password")]
    Credentials,
    /// An address that is not public.
    #[error("{0} is not a public address")]
    NotPublic(IpAddr),
}

/// A place to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The name or address, as TLS and `Host` want it, IPv6 without brackets.
    pub host: String,
    /// The address, where the URL has one.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Over TLS or not.
    pub tls: bool,
    /// Path and query.
    pub target: String,
}

impl Destination {
    /// Reads a URL and checks all that can be checked without resolving it.
    pub fn parse(text: &str, allowed: Allowed) -> Result<Self, DestinationError> {
        if text.len() > URL_BYTES_MAX {
            return Err(DestinationError::TooLong);
        }
        let url = Url::parse(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(DestinationError::Credentials);
        }
        let (host, address) = match url.host() {
            Some(Host::Domain(name)) => (name.to_owned(), None),
            Some(Host::Ipv4(address)) => (address.to_string(), Some(IpAddr::V4(address))),
            Some(Host::Ipv6(address)) => (address.to_string(), Some(IpAddr::V6(address))),
            None => return Err(DestinationError::NoHost),
        };
        let tls = url.scheme() == "https";
        let plain_allowed = allowed.loopback && url.scheme() == "http" && is_loopback(&host, address);
        if !tls && !plain_allowed {
            return Err(DestinationError::Scheme);
        }
        if let Some(address) = address {
            check(address, allowed)?;
        }
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        Ok(Self {
            host,
            address,
            port: url.port_or_known_default().unwrap_or(443),
            tls,
            target: format!("{}{query}", url.path()),
        })
    }

    /// What the `Host` field says.
    pub fn authority(&self) -> String {
        let host = match self.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// Scheme, host and port: what lists and the journal show. A path may be a secret.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            if self.tls { "https" } else { "http" },
            self.authority()
        )
    }
}

fn is_loopback(host: &str, address: Option<IpAddr>) -> bool {
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Checks an address before anything is sent to it.
pub fn check(address: IpAddr, allowed: Allowed) -> Result<(), DestinationError> {
    let address = address.to_canonical();
    let is_allowed = match address {
        _ if address.is_loopback() => allowed.loopback,
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    };
    if is_allowed {
        Ok(())
    } else {
        Err(DestinationError::NotPublic(address))
    }
}

/// Everything but the blocks of the IANA IPv4 Special-Purpose Address Registry (RFC 6890) that are not globally
/// reachable, multicast (RFC 5771), and what is reserved.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // This network; loopback.
        (0 | 127, ..) => true,
        // Shared address space (RFC 6598); protocol assignments; 6to4 relays (RFC 7526); benchmarking (RFC 2544).
        (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _) => true,
        (224.., ..) => true,
        _ => address.is_private() || address.is_link_local() || address.is_documentation(),
    };
    !is_special
}

/// Global unicast, 2000::/3 (RFC 4291 2.4), without what is in it for protocols (2001::/23), documentation (RFC 3849,
/// RFC 9637) and 6to4 (RFC 3056), which leads to an IPv4 address of the sender's choice. Addresses that embed an IPv4
/// address (64:ff9b::/96 and others) are outside of it anyway.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    match (a, b) {
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff) => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Allowed = Allowed { loopback: false };
    const DEVELOPMENT: Allowed = Allowed { loopback: true };

    fn is_public(text: &str) -> bool {
        check(text.parse().unwrap(), STRICT).is_ok()
    }

    #[test]
    fn only_public_addresses_are_reached() {
        for public in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2400:3200::1",
            "2606:4700::1111",
            "2001:200::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside), "{inside}");
        }
    }

    #[test]
    fn a_development_engine_reaches_loopback_and_nothing_else_more() {
        let reaches = |text: &str| check(text.parse().unwrap(), DEVELOPMENT).is_ok();
        assert!(reaches("127.0.0.1") && reaches("::1"));
        assert!(!reaches("10.0.0.1") && !reaches("169.254.169.254"));
    }

    #[test]
    fn urls_are_read_as_they_will_be_used() {
        let parse = |text| Destination::parse(text, STRICT).unwrap();
        let hook = parse("https://Hooks.Example.com/a/b?c=d#e");
        assert_eq!((hook.host.as_str(), hook.port), ("hooks.example.com", 443));
        assert_eq!(hook.target, "/a/b?c=d");
        assert_eq!(hook.authority(), "hooks.example.com");
        assert_eq!(hook.to_string(), "https://hooks.example.com");
        assert_eq!(
            parse("https://[2400:3200::1]:8443").authority(),
            "[2400:3200::1]:8443"
        );
        let local = Destination::parse("http://127.0.0.1:9/x", DEVELOPMENT).unwrap();
        assert_eq!((local.tls, local.authority().as_str()), (false, "127.0.0.1:9"));
    }

    #[test]
    fn what_is_refused_says_why() {
        use DestinationError as E;
        let refused = |text: &str, allowed| Destination::parse(text, allowed).unwrap_err();
        assert_eq!(refused("http://example.com", STRICT), E::Scheme);
        assert_eq!(refused("http://example.com", DEVELOPMENT), E::Scheme);
        assert_eq!(refused("ftp://example.com", DEVELOPMENT), E::Scheme);
        assert_eq!(refused("https://u:p@example.com", STRICT), E::Credentials);
        assert!(matches!(refused("nowhere", STRICT), E::Unreadable(_)));
        assert_eq!(
            refused(&format!("https://a/{}", "b".repeat(2_048)), STRICT),
            E::TooLong
        );
        // Written so as to look like something else.
        for hidden in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:127.0.0.1]/",
        ] {
            assert!(matches!(refused(hidden, STRICT), E::NotPublic(_)), "{hidden}");
        }
    }
}
