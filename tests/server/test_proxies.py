"""Whose request it is, behind proxies of the operator's and for clients who lie about it."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from computeswarm.core.errors import ConfigError
from computeswarm.server.proxies import Clients, read_networks

PROXIES = "10.0.0.0/8, 2001:db8:1::/48, 192.0.2.7"


def seen(peer: str, *forwarded: str, trusted: str = PROXIES) -> str:
    headers = CIMultiDict(("X-Forwarded-For", value) for value in forwarded)
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=peer)
    return Clients(read_networks(trusted)).address(request)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        # nobody's word counts but a proxy's of ours
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
        ("10.1.2.3", (), "10.1.2.3"),
        ("10.1.2.3", ("198.51.100.1",), "198.51.100.1"),
        # what the client wrote himself stands left of what our proxy saw
        ("10.1.2.3", ("1.2.3.4, 198.51.100.1",), "198.51.100.1"),
        ("10.1.2.3", ("1.2.3.4", "198.51.100.1"), "198.51.100.1"),
        ("10.1.2.3", ("1.2.3.4, 198.51.100.1, 192.0.2.7, 10.9.9.9",), "198.51.100.1"),
        # all of them ours: the one furthest out
        ("10.1.2.3", ("10.7.7.7, 192.0.2.7",), "10.7.7.7"),
        # rubbish ends what can be believed
        ("10.1.2.3", ("198.51.100.1, <script>, 192.0.2.7",), "192.0.2.7"),
        ("10.1.2.3", ("",), "10.1.2.3"),
        ("10.1.2.3", ("unknown",), "10.1.2.3"),
        ("10.1.2.3", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.1.2.3", ("[2001:db8:2::5]:4711",), "2001:db8:2::5"),
        ("2001:db8:1::1", ("2001:DB8:2::5",), "2001:db8:2::5"),
        # a dual-stack socket shows IPv4 peers so
        ("::ffff:10.1.2.3", ("198.51.100.1",), "198.51.100.1"),
    ],
)
def test_who_asks(peer: str, forwarded: tuple[str, ...], client: str) -> None:
    assert seen(peer, *forwarded) == client


def test_without_proxies_the_header_means_nothing() -> None:
    assert seen("203.0.113.9", "198.51.100.1", trusted="") == "203.0.113.9"


def test_a_header_of_any_length_costs_little() -> None:
    assert seen("10.1.2.3", ", ".join(["10.0.0.1"] * 2_000)) == "10.0.0.1"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", "::/129"])
def test_a_wrong_network_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trusted_proxies.*write them like"):
        read_networks(f"192.0.2.7, {text}")
