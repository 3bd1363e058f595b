"""Which addresses lead inward: to this machine, its network, or nowhere a stranger's webhook may point. Pure.

What is looked at is the address that will be connected to, never a name and never its spelling. The tables are
IANA's special-purpose registries, written out because the ``ipaddress`` of older Pythons lacks some of them
(https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry).
"""

import enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final


class Inward(enum.StrEnum):
    """Why an address is not out in the world."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    SHARED = "carrier-grade NAT"
    LINK_LOCAL = "link-local"
    METADATA = "cloud metadata"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    RESERVED = "reserved"


LOCAL_RANGES: Final = frozenset({Inward.LOOPBACK, Inward.PRIVATE, Inward.SHARED})
"""What AGENT_ALLOW_INWARD_WEBHOOKS opens. The rest, the clouds' metadata among it, is never a webhook's place."""

_V4: Final = [
    (IPv4Network(network), kind)
    for kind, networks in {
        # Azure's wire server, Alibaba's and Oracle's metadata; the others' are in 169.254.0.0/16.
        Inward.METADATA: "168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 169.254.169.254/32",
        Inward.UNSPECIFIED: "0.0.0.0/8",
        Inward.LOOPBACK: "127.0.0.0/8",
        Inward.PRIVATE: "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        Inward.SHARED: "100.64.0.0/10",
        Inward.LINK_LOCAL: "169.254.0.0/16",
        Inward.MULTICAST: "224.0.0.0/4",
        Inward.RESERVED: "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
        "240.0.0.0/4",
    }.items()
    for network in networks.split()
]
_V6: Final = [
    (IPv6Network(network), kind)
    for kind, networks in {
        Inward.METADATA: "fd00:ec2::254/128 fd20:ce::254/128",
        Inward.UNSPECIFIED: "::/128",
        Inward.LOOPBACK: "::1/128",
        Inward.PRIVATE: "fc00::/7 fec0::/10 64:ff9b:1::/48",
        Inward.LINK_LOCAL: "fe80::/10",
        Inward.MULTICAST: "ff00::/8",
        # 2001::/23 has Teredo, ORCHID and benchmarking in it, and nothing that serves the public.
        Inward.RESERVED: "2001::/23 2001:db8::/32 3fff::/20",
    }.items()
    for network in networks.split()
]
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All that IANA has given out for unicast so far."""
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = 0x5EFE
_ISATAP_UNIVERSAL: Final = 0x0200_5EFE


def inward_kind(address: IPv4Address | IPv6Address) -> Inward | None:
    """Why ``address`` leads inward; None: it is out in the world.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, ISATAP) is what counts: that is where packets go.
    """
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), None)
    embedded = _embedded(address)
    if embedded is not None and (kind := inward_kind(embedded)) is not None:
        return kind
    if address in _MAPPED or address in _NAT64:
        return None
    if (kind := next((kind for network, kind in _V6 if address in network), None)) is not None:
        return kind
    return None if address in _GLOBAL_V6 else Inward.RESERVED


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator or tunnel on the way would send to."""
    number = int(address)
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(number & 0xFFFF_FFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    if (number >> 32) & 0xFFFF_FFFF in (_ISATAP, _ISATAP_UNIVERSAL):
        return IPv4Address(number & 0xFFFF_FFFF)
    return None
