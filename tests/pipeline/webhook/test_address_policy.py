"""Which addresses lead inward: every special table, every embedding, every spelling."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.webhook.address_policy import LOCAL_RANGES, Inward, inward_kind

SPECIAL_V4 = {
    "127.0.0.0/8": Inward.LOOPBACK,
    "10.0.0.0/8": Inward.PRIVATE,
    "172.16.0.0/12": Inward.PRIVATE,
    "192.168.0.0/16": Inward.PRIVATE,
    "100.64.0.0/10": Inward.SHARED,
    "169.254.0.0/16": Inward.LINK_LOCAL,
    "224.0.0.0/4": Inward.MULTICAST,
    "0.0.0.0/8": Inward.UNSPECIFIED,
    "240.0.0.0/4": Inward.RESERVED,
    "192.0.0.0/24": Inward.RESERVED,
    "192.0.2.0/24": Inward.RESERVED,
    "198.18.0.0/15": Inward.RESERVED,
    "198.51.100.0/24": Inward.RESERVED,
    "203.0.113.0/24": Inward.RESERVED,
}
SPECIAL_V6 = {
    "::1/128": Inward.LOOPBACK,
    "::/128": Inward.UNSPECIFIED,
    "fc00::/7": Inward.PRIVATE,
    "fec0::/10": Inward.PRIVATE,
    "64:ff9b:1::/48": Inward.PRIVATE,
    "fe80::/10": Inward.LINK_LOCAL,
    "ff00::/8": Inward.MULTICAST,
    "2001::/32": Inward.RESERVED,
    "2001:db8::/32": Inward.RESERVED,
    "3fff::/20": Inward.RESERVED,
    "100::/64": Inward.RESERVED,
    "::/96": Inward.RESERVED,
    "5f00::/16": Inward.RESERVED,
    "4000::/3": Inward.RESERVED,
}
METADATA = ["169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"]

inside_v4 = st.sampled_from([IPv4Network(network) for network in SPECIAL_V4]).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address)
)
inside_v6 = st.sampled_from([IPv6Network(network) for network in SPECIAL_V6]).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv6Address)
)


@pytest.mark.parametrize(("network", "kind"), [*SPECIAL_V4.items(), *SPECIAL_V6.items()])
def test_the_ends_of_every_special_network_lead_inward(network: str, kind: Inward) -> None:
    numbers = IPv4Network(network) if "." in network else IPv6Network(network)
    assert inward_kind(numbers[-1]) in (kind, Inward.METADATA)
    if network != "::/96":  # which begins with the unspecified address and loopback
        assert inward_kind(numbers[0]) == kind


@pytest.mark.parametrize("address", METADATA)
def test_the_clouds_metadata_is_never_anybodys_webhook(address: str) -> None:
    assert inward_kind(ip_address(address)) is Inward.METADATA
    assert Inward.METADATA not in LOCAL_RANGES


OUTSIDE = """
    8.8.8.8 1.1.1.1 172.15.255.255 172.32.0.0 100.63.255.255 100.128.0.0 11.0.0.0 223.255.255.255
    2606:4700:4700::1111 2a00:1450::1 2001:200::1 2002:808:808::1 64:ff9b::8.8.8.8 ::ffff:8.8.8.8
    2400:cb00::5efe:808:808
""".split()  # noqa: SIM905 - as readable as it gets


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_world_is_outside(address: str) -> None:
    assert inward_kind(ip_address(address)) is None


@given(inside_v4)
def test_special_ipv4_leads_inward(address: IPv4Address) -> None:
    assert inward_kind(address) is not None


@given(
    st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address), inside_v6)
)
def test_nothing_is_outside_that_pythons_own_tables_hold_for_inside(address: IPv4Address | IPv6Address) -> None:
    """An independent opinion; it knows neither metadata nor what is inside IPv6 addresses, so it is weaker."""
    if inward_kind(address) is None and not (isinstance(address, IPv6Address) and address.ipv4_mapped):
        assert address.is_global
        assert not address.is_multicast


@given(inside_v6)
def test_special_ipv6_leads_inward(address: IPv6Address) -> None:
    assert inward_kind(address) is not None


@given(inside_v4, st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1))
def test_an_inward_ipv4_address_inside_ipv6_leads_inward(address: IPv4Address, low: int, prefix: int) -> None:
    """Mapped, compatible, NAT64, 6to4 and ISATAP: a translator would send the packets to the IPv4 address."""
    number = int(address)
    sites = 0x2400 << 112 | (prefix & (2**48 - 1)) << 64
    for embedding in (
        0xFFFF << 32 | number,
        number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80 | low,
        sites | 0x5EFE << 32 | number,
        sites | 0x0200_5EFE << 32 | number,
    ):
        assert inward_kind(IPv6Address(embedding)) is not None


@pytest.mark.parametrize("scope", ["fe80::1%eth0", "fe80::1%1"])
def test_a_scope_changes_nothing(scope: str) -> None:
    assert inward_kind(ip_address(scope)) is Inward.LINK_LOCAL


@given(inside_v4, st.sampled_from(["decimal", "hex", "octal", "short", "mixed", "dotted", "mapped"]))
def test_every_spelling_of_an_inward_address_resolves_to_one(address: IPv4Address, spelling: str) -> None:
    """What is checked is what the resolver makes of a host, so how it is spelled cannot matter."""
    number, (a, b, c, d) = int(address), address.packed
    host = {
        "decimal": f"{number}",
        "hex": f"{number:#x}",
        "octal": f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        "short": f"{a}.{b << 16 | c << 8 | d}",
        "mixed": f"{a:#x}.{b}.{c << 8 | d}",
        "dotted": f"{a}.{b}.{c}.{d}",
        "mapped": f"::ffff:{address}",
    }[spelling]
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert found
    for *_, place in found:
        assert inward_kind(ip_address(place[0])) is not None
