//! Which addresses belong to the public internet: IANA's special-purpose registries (RFC 6890 and its updates), read
//! strictly. What is not known to be public is not public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// True for an address that a stranger's server may have.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, _, _) => true,                             // this network, private, loopback
        (100, 64..=127, _) => true,                               // carrier-grade NAT
        (169, 254, _) => true,                                    // link-local, cloud metadata
        (172, 16..=31, _) | (192, 168, _) => true,                // private
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) => true, // protocol assignments, documentation
        (192, 31, 196) | (192, 52, 193) | (192, 175, 48) => true, // AS112, AMT
        (192, 88, 99) => true,                                    // 6to4 relays
        (198, 18..=19, _) => true,                                // benchmarks
        (224.., _, _) => true,                                    // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [.., high, low] = segments;
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    let embedded = Ipv4Addr::new(a, b, c, d);
    match segments {
        [0, 0, 0, 0, 0, 0xffff, ..] => is_public_v4(embedded), // v4-mapped
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(embedded), // NAT64 of a public address
        [0x2001, 0..=0x01ff, ..] => false,                     // Teredo, ORCHID, benchmarks and other assignments
        [0x2001, 0xdb8, ..] => false,                          // documentation
        [0x2002, ..] => false,                                 // 6to4: hides a v4 address
        [0x2620, 0x4f, 0x8000, ..] => false,                   // AS112
        [0x3ffe, ..] | [0x3fff, 0..=0x0fff, ..] => false,      // 6bone, documentation
        [0x2000..=0x3fff, ..] => true,                         // global unicast
        _ => false, // loopback, unspecified, v4-compatible, local NAT64, unique local, link-local, multicast
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::is_public;

    #[test]
    fn special_addresses_are_not_public() {
        let special = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255 169.254.0.1 \
            169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 \
            198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::127.0.0.1 \
            ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 \
            64:ff9b:1::8.8.8.8 100::1 2001::1 2001:0:53aa::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 3fff::1 \
            5f00::1 fc00::1 fd12:3456::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1";
        for address in special.split_whitespace() {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn ordinary_addresses_are_public() {
        let ordinary = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 169.253.0.1 \
            172.15.0.1 172.32.0.1 192.0.1.1 192.167.0.1 198.17.0.1 198.20.0.1 203.0.112.1 223.255.255.255 ::ffff:8.8.8.8 \
            64:ff9b::8.8.8.8 2001:200::1 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450::1";
        for address in ordinary.split_whitespace() {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
