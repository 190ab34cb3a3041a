//! What an address is, as data: one table of networks, most specific meaning first, and the forms of IPv6 that carry an IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// This machine.
    Loopback,
    /// No address, or "this network".
    Unspecified,
    /// Many machines.
    Multicast,
    /// The wire it is on.
    LinkLocal,
    /// A cloud's metadata service outside link-local.
    Metadata,
    /// A private network, or a provider's shared one.
    Private,
    /// Not for hosts: protocol assignments, benchmarks, the future, broadcast.
    Reserved,
    /// Anything else.
    Public,
}

/// Networks and what they are. The first row that contains the address decides.
const TABLE_V4: &[([u8; 4], u32, Class)] = &[
    ([100, 100, 100, 200], 32, Class::Metadata),
    ([168, 63, 129, 16], 32, Class::Metadata),
    ([192, 0, 0, 192], 32, Class::Metadata),
    ([0, 0, 0, 0], 8, Class::Unspecified),
    ([127, 0, 0, 0], 8, Class::Loopback),
    ([169, 254, 0, 0], 16, Class::LinkLocal),
    ([224, 0, 0, 0], 4, Class::Multicast),
    ([10, 0, 0, 0], 8, Class::Private),
    ([172, 16, 0, 0], 12, Class::Private),
    ([192, 168, 0, 0], 16, Class::Private),
    ([100, 64, 0, 0], 10, Class::Private),
    ([192, 0, 0, 0], 24, Class::Reserved),
    ([198, 18, 0, 0], 15, Class::Reserved),
    ([240, 0, 0, 0], 4, Class::Reserved),
];

/// As [`TABLE_V4`]; what embeds an IPv4 address is taken apart before.
const TABLE_V6: &[([u16; 8], u32, Class)] = &[
    ([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254], 128, Class::Metadata),
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, Class::Unspecified),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Class::Loopback),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Class::LinkLocal),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Class::Multicast),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Class::Private),
];

/// What an address is. An IPv6 address that carries an IPv4 address is what that one is; where it may carry two, the worse counts.
pub fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => {
            let named = lookup_v6(v6);
            if named != Class::Public {
                return named;
            }
            embedded(v6).into_iter().flatten().map(class_v4).max_by_key(|c| badness(*c)).unwrap_or(Class::Public)
        }
    }
}

fn class_v4(v4: Ipv4Addr) -> Class {
    let bits = u32::from(v4);
    let hit = TABLE_V4.iter().find(|(net, length, _)| (bits ^ u32::from_be_bytes(*net)) >> (32 - length) == 0);
    hit.map_or(Class::Public, |(_, _, class)| *class)
}

fn lookup_v6(v6: Ipv6Addr) -> Class {
    let bits = u128::from(v6);
    let hit = TABLE_V6.iter().find(|(net, length, _)| (bits ^ u128::from(Ipv6Addr::from(*net))) >> (128 - length) == 0);
    hit.map_or(Class::Public, |(_, _, class)| *class)
}

/// The IPv4 addresses an IPv6 address carries, by the ways there are.
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let s = v6.segments();
    let at = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        // Mapped and compatible; NAT64 with the well-known prefix; 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            [Some(at(high, low)), None]
        }
        // NAT64, the prefix for local use: with /96 at the end, with /48 around the octet that must be zero.
        [0x64, 0xff9b, 1, a, b, c, high, low] => [Some(at(high, low)), Some(at(a, (b & 0xff) << 8 | c >> 8))],
        _ => [None, None],
    }
}

const fn badness(class: Class) -> u8 {
    match class {
        Class::Public => 0,
        Class::Private => 1,
        Class::Loopback => 2,
        Class::Reserved => 3,
        Class::Multicast => 4,
        Class::Unspecified => 5,
        Class::LinkLocal => 6,
        Class::Metadata => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        for (class_wanted, addresses) in [
            (Class::Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"][..]),
            (Class::Unspecified, &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"]),
            (Class::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1"]),
            (
                Class::LinkLocal,
                &[
                    "169.254.0.1",
                    "169.254.169.254",
                    "fe80::1",
                    "febf::1",
                    "::ffff:169.254.169.254",
                    "64:ff9b::a9fe:a9fe",
                    "2002:a9fe:a9fe::1",
                    "::a9fe:a9fe",
                ],
            ),
            (Class::Metadata, &["100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "::ffff:168.63.129.16"]),
            (
                Class::Private,
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "100.127.255.255",
                    "fc00::1",
                    "fdff::1",
                    "::ffff:10.0.0.1",
                ],
            ),
            (Class::Reserved, &["192.0.0.1", "198.18.0.1", "198.19.255.255", "240.0.0.1", "255.255.255.255"]),
            (
                Class::Public,
                &[
                    "1.1.1.1",
                    "172.32.0.1",
                    "172.15.0.1",
                    "100.63.0.1",
                    "100.128.0.1",
                    "198.20.0.1",
                    "192.0.1.1",
                    "2606:4700::1111",
                    "::ffff:8.8.8.8",
                    "fec0::1",
                ],
            ),
        ] {
            for address in addresses {
                assert_eq!(class(address.parse().unwrap()), class_wanted, "{address}");
            }
        }
    }

    #[test]
    fn the_local_nat64_prefix_is_read_both_ways() {
        // 64:ff9b:1::/48 around octet 64..71: 169.254.169.254, and at the end a public address.
        assert_eq!(class("64:ff9b:1:a9fe:00a9:fe00:808:808".parse().unwrap()), Class::LinkLocal);
        assert_eq!(class("64:ff9b:1::a9fe:a9fe".parse().unwrap()), Class::LinkLocal);
    }

    proptest::proptest! {
        #[test]
        fn a_mapped_address_is_what_it_maps(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            proptest::prop_assert_eq!(class(IpAddr::V6(v4.to_ipv6_mapped())), class(IpAddr::V4(v4)));
        }
    }
}
