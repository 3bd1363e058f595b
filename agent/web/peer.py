"""Who is at the other end: the peer itself, or the client that a proxy of ours speaks for. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import attrs

Network = IPv4Network | IPv6Network
_FORWARDED: Final = ("forwarded", "x-forwarded-", "x-real-ip")
"""How the names of fields begin that only a proxy may fill in."""
_V6_PREFIX: Final = 64
"""Whoever has one IPv6 address has this many bits of them."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, divided by commas. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


@attrs.frozen
class TrustedProxies:
    """The proxies whose word counts."""

    networks: tuple[Network, ...] = ()

    def trust(self, address: str) -> bool:
        """Whether ``address`` is one of them."""
        if not self.networks:
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return False
        found = (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
        return any(found in network for network in self.networks)

    def client_of(self, peer: str, headers: Mapping[str, str]) -> str:
        """The address a request came from: the last one in X-Forwarded-For that is no proxy of ours."""
        client = peer
        for hop in _hops(headers.get("x-forwarded-for", "")):
            if not self.trust(client):
                break
            client = hop
        return client

    def base_of(self, peer: str, own: str, headers: Mapping[str, str]) -> str:
        """The URL a request was sent to, without a path: ``own``, or what a trusted proxy says of it.

        Of several values the last counts, which the nearest proxy wrote.
        """
        if not self.trust(peer):
            return own
        scheme = _last(headers.get("x-forwarded-proto", "")).lower()
        host = _last(headers.get("x-forwarded-host", "")) or headers.get("host", "")
        return f"{'https' if scheme in ('https', 'wss') else 'http'}://{host}"


def without_forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """The fields without those that only a proxy may fill in; names are in lower case."""
    return {name: value for name, value in headers.items() if not name.startswith(_FORWARDED)}


def lobby_key(address: str) -> str:
    """What is counted as one address: of IPv6 a whole /64."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((int(found), _V6_PREFIX), strict=False))


def _hops(forwarded_for: str) -> Iterator[str]:
    """The addresses of an X-Forwarded-For, the nearest first; it ends at what is none."""
    for part in reversed(forwarded_for.split(",")):
        hop = part.strip()
        try:
            ip_address(hop)
        except ValueError:
            return
        yield hop


def _last(values: str) -> str:
    return values.rpartition(",")[2].strip()
