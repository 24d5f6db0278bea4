//! Addresses as lists name them: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// An address or a network in CIDR notation (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// IPv4 addresses as their mapped ones.
    address: u128,
    mask: u128,
}

impl Network {
    /// Whether an address is in it. An IPv4 address is itself, also where an IPv6 socket shows it mapped.
    pub fn contains(&self, address: IpAddr) -> bool {
        wide(address) & self.mask == self.address
    }
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{typed}` is no address: write one such as `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`");
        let (address, length) =
            typed.split_once('/').map_or((typed, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(width), |length| length.parse::<u32>().map_err(|_| wrong()))?;
        if length > width {
            return Err(format!("`{typed}` has too long a prefix: expected at most /{width}"));
        }
        let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
        // The upper part of a mapped address always counts.
        let mask = if width == 32 { mask | !u128::from(u32::MAX) } else { mask };
        let whole = wide(address);
        if whole & !mask != 0 {
            let first = Ipv6Addr::from(whole & mask);
            let first = first.to_ipv4_mapped().map_or(IpAddr::V6(first), IpAddr::V4);
            return Err(format!("`{typed}` names an address inside of its network: write `{first}/{length}`"));
        }
        Ok(Self { address: whole, mask })
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn networks_contain_their_addresses() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
    }

    #[test]
    fn mistakes_say_what_to_type() {
        for (typed, hint) in [
            ("10.0.0.0/33", "at most /32"),
            ("10.0.0.1/8", "`10.0.0.0/8`"),
            ("host", "192.0.2.7"),
            ("::1/x", "2001:db8::/32"),
        ] {
            let error = typed.parse::<Network>().unwrap_err();
            assert!(error.contains(hint), "{typed}: {error}");
        }
    }
}
