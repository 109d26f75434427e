"""Who a request really comes from, where proxies of the operator's stand before the server."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from aiohttp import web

from computeswarm.core.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HEADER = "X-Forwarded-For"
_MOST = 20
"""Hops that are looked at."""


def read_networks(text: str) -> tuple[Network, ...]:
    """The networks of a setting such as ``10.0.0.0/8, 192.0.2.7``.

    Raises:
        ConfigError: says which entry is none.
    """
    networks = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            raise ConfigError(
                f"The setting trusted_proxies: {entry[:60]!r} is no address or network; write them"
                " like 192.0.2.7 or 10.0.0.0/8 (no host bits set)."
            ) from None
    return tuple(networks)


class Clients:
    """Finds the client of a request.

    Each proxy appends to the header the address that it saw, so it is read from the right, and only
    as far as proxies of ours wrote it: what stands further left is the client's own word.
    """

    def __init__(self, trusted: tuple[Network, ...] = ()) -> None:
        self._trusted = trusted
        self._is_trusted = lru_cache(maxsize=4_096)(self._look_up)

    def address(self, request: web.Request) -> str:
        """The client's address; empty for the peer of a Unix socket without a proxy."""
        peer = request.remote or ""
        if not self._trusted or not self._is_trusted(peer):
            return peer
        given = request.headers.getall(HEADER, ())
        if not given:
            return peer
        found = peer
        hops = [hop.strip() for hop in ",".join(given).split(",")]
        for hop in reversed(hops[-_MOST:]):
            address = _address(hop)
            if address is None:
                break  # nobody of ours writes such a thing
            found = address
            if not self._is_trusted(address):
                break
        return found

    def trusts(self, address: str) -> bool:
        """Whether a proxy of ours has this address."""
        return bool(self._trusted) and self._is_trusted(address)

    def _look_up(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(
            parsed.version == network.version and parsed in network for network in self._trusted
        )


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _address(hop: str) -> str | None:
    """The address of one entry; some proxies add a port, and brackets round IPv6."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    parsed = _parse(hop[:64])
    return None if parsed is None else str(parsed)
