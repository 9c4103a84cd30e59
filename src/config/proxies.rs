//! Settings that say which proxies stand in front, and how they name the client behind them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::value::SettingValue;

/// Addresses of proxies whose word on the client's address is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxies(IpNet);

impl TrustedProxies {
    /// Whether the address is among them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// A prefix, or one address alone.
    fn read(text: &str) -> Result<Self, String> {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(|prefix| Self(prefix.trunc()))
            .map_err(|_| {
                format!("must hold addresses or prefixes like 10.0.0.0/8 or fd00::/8, has `{text}`")
            })
    }
}

impl SettingValue for Vec<TrustedProxies> {
    /// Prefixes separated by commas.
    fn from_text(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        entries.map(TrustedProxies::read).collect()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let toml::Value::Array(entries) = value else {
            return Err("must be a list of strings".to_owned());
        };
        let entries = entries.iter().map(|entry| match entry {
            toml::Value::String(text) => TrustedProxies::read(text),
            _ => Err("must hold strings only".to_owned()),
        });
        entries.collect()
    }

    fn show(&self) -> Option<String> {
        let shown = self
            .iter()
            .map(|prefix| toml::Value::from(prefix.0.to_string()));
        Some(toml::Value::Array(shown.collect()).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_single_addresses_are_read_and_shown() {
        let read = Vec::<TrustedProxies>::from_text("10.1.2.3/8, 192.0.2.7,fd00::/8");
        let read = read.expect("prefixes");
        assert_eq!(
            read.show().as_deref(),
            Some(r#"["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]"#)
        );
        let holds = |address: &str| {
            let address = address.parse().expect("an address");
            read.iter().any(|prefix| prefix.contain(address))
        };
        assert!(holds("10.255.0.1") && holds("192.0.2.7") && holds("fd12::1"));
        assert!(!holds("192.0.2.8") && !holds("11.0.0.1") && !holds("::ffff:10.0.0.1"));
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["proxy.example", "10.0.0.0/33", "10.0.0.0/", "10.0.0"] {
            assert!(Vec::<TrustedProxies>::from_text(text).is_err(), "{text}");
        }
        assert_eq!(Vec::<TrustedProxies>::from_text(""), Ok(Vec::new()));
    }
}
