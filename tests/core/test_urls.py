from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from computeswarm.core.urls import (
    host_matches,
    host_of,
    is_host_pattern,
    is_local_host,
    origin,
    server_name,
)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Seller.Test:8403/execute", "seller.test"),
        ("https://seller.test./x?y#z", "seller.test"),
        ("http://[2001:DB8:0::1]:80/", "2001:db8::1"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("https://b\u00fccher.test/", "xn--bcher-kva.test"),
        ("http://good.test@evil.test/", None),
        ("http://good.test\\@evil.test/", None),
        ("http://evil.test\\.good.test/", None),
        ("http://a b.test/", None),
        ("ftp://seller.test/", None),
        ("//seller.test/", None),
        ("http://", None),
        ("http://seller.test:99999/", None),
        ("http://[::1", None),
    ],
)
def test_the_host_is_the_one_that_is_connected_to(url: str, host: str | None) -> None:
    assert host_of(url) == host


@given(st.text(alphabet="ab.:@/\\?#[]%0-_ \u00e4\u3002", max_size=20))
def test_no_address_means_another_host_to_the_client_that_connects(rest: str) -> None:
    found = host_of(f"http://{rest}")
    if found is not None:
        theirs = URL(f"http://{rest}").raw_host
        assert theirs is not None
        assert theirs.lower().rstrip(".") == found


def test_a_suffix_matches_below_itself_only() -> None:
    assert host_matches("gpu.example.org", "*.example.org")
    assert host_matches("a.b.example.org", "*.Example.org")
    assert host_matches("example.org", "example.org.")
    for host in ("example.org", "badexample.org", "example.org.evil.test", "example.orga"):
        assert not host_matches(host, "*.example.org")
    assert not is_host_pattern("*.")
    assert not is_host_pattern("*.*.org")


def test_our_own_network_is_known_by_address() -> None:
    assert all(map(is_local_host, ("localhost", "127.0.0.1", "10.1.2.3", "::1", "fd00::1")))
    assert not any(map(is_local_host, ("8.8.8.8", "localhost.evil.test", "64:ff9b::7f00:1")))


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    shown = origin("https://me:pw@rpc.test:8545/v2/KEY?token=T#f")
    assert shown == "https://rpc.test:8545"
    assert origin("http://[::1]:8545/KEY") == "http://[::1]:8545"
    assert "KEY" not in origin("http://[::1/KEY")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("HTTPS://Market.Test.:443/", "https://market.test"),
        ("http://market.test:80", "http://market.test"),
        ("https://market.test:80/v1//", "https://market.test:80/v1"),
        ("http://[2001:DB8:0::1]:8402", "http://[2001:db8::1]:8402"),
        ("https://b\u00fccher.test", "https://xn--bcher-kva.test"),
    ],
)
def test_a_server_has_one_name_however_it_is_spelled(url: str, name: str) -> None:
    assert server_name(url) == name == server_name(name)


@pytest.mark.parametrize(
    "url",
    ["", "market.test", "ftp://m.test", "http://a@m.test", "http://m.test?x", "http://m.test/#x"],
)
def test_what_is_no_servers_address_has_no_name(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        server_name(url)
