//! Where a request comes from: from its peer, unless that is a proxy whose word is trusted.
//!
//! Such a proxy writes the address that it saw at the end of a header; what stands before was
//! written by whoever was there first, who may have made it up. So the list is read from its end,
//! for as long as those who wrote it are trusted.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};

use crate::config::{self, ClientHeader, TrustedProxies};

/// Finds the address of a client.
pub struct ClientAddresses {
    trusted: Vec<TrustedProxies>,
    header: ClientHeader,
}

impl ClientAddresses {
    /// As the settings say whom to trust.
    #[must_use]
    pub fn new(http: &config::Http) -> Self {
        Self {
            trusted: http.trusted_proxies.clone(),
            header: http.client_header,
        }
    }

    /// The address that a request comes from.
    #[must_use]
    pub fn find(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer?.ip().to_canonical();
        if !self.trusts(client) {
            return Some(client);
        }
        for hop in self.hops(headers).into_iter().rev() {
            // A name or a blank is no address to count by: it is its writer who is counted.
            let Some(address) = hop else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        Some(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|proxies| proxies.contain(address))
    }

    /// Those who passed the request on, the first one first.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let (name, read): (HeaderName, fn(&str) -> Option<IpAddr>) = match self.header {
            ClientHeader::XForwardedFor => (X_FORWARDED_FOR, address_of),
            ClientHeader::Forwarded => (FORWARDED, |element| address_of(for_of(element)?)),
        };
        let lines = headers.get_all(name);
        let lines = lines.map(|line| line.to_str().unwrap_or_default());
        lines.flat_map(|line| line.split(',')).map(read).collect()
    }
}

/// The `for` of one element of a `Forwarded` header. Quoted commas are in no address, so it does no
/// harm that elements were parted at them.
fn for_of(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map(|(_, node)| node.trim().trim_matches('"'))
}

/// An address with or without a port, an IPv6 one with or without brackets.
fn address_of(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bracketed = node
        .strip_prefix('[')
        .and_then(|rest| Some(rest.split_once(']')?.0));
    let address = match bracketed {
        Some(inside) => inside.parse().ok(),
        None => node.parse().ok().or_else(|| {
            let with_port: Option<SocketAddr> = node.parse().ok();
            with_port.map(|address| address.ip())
        }),
    };
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::config::{Config, SettingValue as _};

    fn addresses(trusted: &str, header: ClientHeader) -> ClientAddresses {
        let mut http = Config::default().http;
        http.trusted_proxies = Vec::from_text(trusted).expect("prefixes");
        http.client_header = header;
        ClientAddresses::new(&http)
    }

    fn found(of: &ClientAddresses, peer: &str, lines: &[(HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            let line = HeaderValue::from_str(line).expect("a value");
            headers.append(name.clone(), line);
        }
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
        let client = of.find(Some(peer), &headers).expect("an address");
        client.to_string()
    }

    fn x_forwarded_for(trusted: &str, peer: &str, lines: &[&str]) -> String {
        let of = addresses(trusted, ClientHeader::XForwardedFor);
        let lines: Vec<_> = lines.iter().map(|line| (X_FORWARDED_FOR, *line)).collect();
        found(&of, peer, &lines)
    }

    #[test]
    fn by_default_nobody_is_believed() {
        assert!(Config::default().http.trusted_proxies.is_empty());
        assert_eq!(
            x_forwarded_for("", "192.0.2.1", &["198.51.100.1"]),
            "192.0.2.1"
        );
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let client = |peer| x_forwarded_for("10.0.0.0/8", peer, &["198.51.100.1"]);
        assert_eq!(client("10.1.1.1"), "198.51.100.1");
        assert_eq!(client("::ffff:10.1.1.1"), "198.51.100.1");
        assert_eq!(client("11.1.1.1"), "11.1.1.1");
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client() {
        let client = |lines: &[&str]| x_forwarded_for("10.0.0.0/8", "10.0.0.1", lines);
        assert_eq!(
            client(&["203.0.113.9, 198.51.100.1"]),
            "198.51.100.1",
            "the first is made up"
        );
        assert_eq!(
            client(&["203.0.113.9, 198.51.100.1, 10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            client(&["203.0.113.9", "198.51.100.1 , 10.0.0.2"]),
            "198.51.100.1",
            "two lines"
        );
        assert_eq!(
            client(&["10.0.0.3, 10.0.0.2"]),
            "10.0.0.3",
            "all are trusted"
        );
        assert_eq!(client(&[]), "10.0.0.1");
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        let client = |line: &str| x_forwarded_for("10.0.0.0/8", "10.0.0.1", &[line]);
        assert_eq!(client("198.51.100.1, unknown, 10.0.0.2"), "10.0.0.2");
        for junk in ["unknown", "", ",", "198.51.100.1,", "1.2.3", "[2001:db8::1"] {
            assert_eq!(client(junk), "10.0.0.1", "{junk}");
        }
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        let client = |line: &str| x_forwarded_for("10.0.0.0/8", "10.0.0.1", &[line]);
        assert_eq!(client("198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(client("2001:db8::1"), "2001:db8::1");
        assert_eq!(client("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(client("::ffff:198.51.100.1"), "198.51.100.1");
    }

    #[test]
    fn the_header_that_the_proxy_does_not_write_is_not_read() {
        let of = addresses("10.0.0.0/8", ClientHeader::Forwarded);
        let lines = [
            (X_FORWARDED_FOR, "203.0.113.9"),
            (
                FORWARDED,
                "for=198.51.100.1;proto=https, For=\"[2001:db8::7]:99\" ; by=x",
            ),
        ];
        assert_eq!(found(&of, "10.0.0.1", &lines), "2001:db8::7");
        assert_eq!(found(&of, "10.0.0.1", &lines[..1]), "10.0.0.1");
        let hidden = [(FORWARDED, "for=198.51.100.1, for=_hidden")];
        assert_eq!(found(&of, "10.0.0.1", &hidden), "10.0.0.1");
        let of = addresses("10.0.0.0/8", ClientHeader::XForwardedFor);
        assert_eq!(found(&of, "10.0.0.1", &lines), "203.0.113.9");
    }
}
