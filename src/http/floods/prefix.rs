//! Who calls, as far as an address tells: the address of one customer, and the network around it.

use std::net::IpAddr;

use ipnet::IpNet;

/// An IPv6 customer has at least a /64: its addresses count as one.
const IPV6_CUSTOMER_BITS: u8 = 64;

/// What one IPv6 site is given at most, so that it holds 65,536 customers' worth of addresses.
const IPV6_NETWORK_BITS: u8 = 48;

/// The smallest IPv4 network that is routed for itself.
const IPV4_NETWORK_BITS: u8 = 24;

/// The leading bits of an address, the others zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(IpNet);

impl Prefix {
    /// What one customer has: an IPv4 address, an IPv6 /64.
    #[must_use]
    pub fn customer(address: IpAddr) -> Self {
        Self::of(address, u8::MAX, IPV6_CUSTOMER_BITS)
    }

    /// The network around it: an IPv4 /24, an IPv6 /48.
    #[must_use]
    pub fn network(address: IpAddr) -> Self {
        Self::of(address, IPV4_NETWORK_BITS, IPV6_NETWORK_BITS)
    }

    fn of(address: IpAddr, ipv4_bits: u8, ipv6_bits: u8) -> Self {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() {
            ipv4_bits
        } else {
            ipv6_bits
        };
        let whole = IpNet::from(address);
        // More bits than there are: the whole address.
        Self(IpNet::new(address, bits).unwrap_or(whole).trunc())
    }

    /// The prefix as bytes, different for every prefix.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        let Self(net) = self;
        bytes[0] = if net.addr().is_ipv4() { 4 } else { 6 };
        bytes[1] = net.prefix_len();
        match net.addr() {
            IpAddr::V4(address) => bytes[2..6].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes[2..].copy_from_slice(&address.octets()),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn together(of: fn(IpAddr) -> Prefix, one: &str, other: &str) -> bool {
        let (one, other) = (of(address(one)), of(address(other)));
        assert_eq!(one == other, one.to_bytes() == other.to_bytes());
        one == other
    }

    #[test]
    fn a_customer_is_one_ipv4_address_or_one_ipv6_64() {
        let together = |one, other| together(Prefix::customer, one, other);
        assert!(together("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!together("192.0.2.1", "192.0.2.2"));
        assert!(together("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!together("2001:db8:0:1::1", "2001:db8::1"));
    }

    #[test]
    fn a_network_is_an_ipv4_24_or_an_ipv6_48() {
        let together = |one, other| together(Prefix::network, one, other);
        assert!(together("192.0.2.1", "192.0.2.254"));
        assert!(!together("192.0.2.1", "192.0.3.1"));
        assert!(together("2001:db8:0:1::1", "2001:db8::1"));
        assert!(!together("2001:db8:1::1", "2001:db8::1"));
    }

    #[test]
    fn prefixes_of_two_lengths_or_families_are_never_one() {
        let zero = |text: &str| Prefix::network(address(text)).to_bytes();
        assert_ne!(zero("0.0.0.0"), zero("::"));
        let customer = Prefix::customer(address("192.0.2.0")).to_bytes();
        assert_ne!(customer, zero("192.0.2.0"));
    }
}
