"""Addresses of servers: whose they are, whether they lie in our own network, how to show them.

An RPC's address often carries a key in its path, its query or before an ``@``. So no address is
ever shown or logged but as its origin.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_ODD = re.compile(r"[\s\\\x00-\x1f\x7f]")
_HOST = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
_PATTERN_LIMIT = 253
_PORTS = {"http": 80, "https": 443}


def host_of(url: str) -> str | None:
    """The host that an http(s) address leads to, in lower case; None where it is no such address.

    An address with an ``@`` or with characters that programs read differently is none: what is
    checked here has to be what is connected to.
    """
    if _ODD.search(url) or "@" in url.partition("://")[2].partition("/")[0]:
        return None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return _plain(host)


def server_name(url: str) -> str:
    """The one spelling of a server's address, for statements that name it.

    Scheme and host in lower case, no port that goes without saying, no slash at the end.

    Raises:
        ValueError: it is no address of a server.
    """
    host, parts = host_of(url), urlsplit(url)
    if host is None or parts.query or parts.fragment:
        raise ValueError("a server's address is http://… or https://…, without ? and #")
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{shown}{port}{parts.path.rstrip('/')}"


def origin(url: str) -> str:
    """``scheme://host:port`` of an address, without whatever may be secret in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that can't be read"
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def is_local_host(host: str) -> bool:
    """Whether a host is surely in our own network: a private or loopback address, or localhost.

    Another name is not, whatever it resolves to.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_loopback or found.is_private or found.is_link_local


def is_host_pattern(pattern: str) -> bool:
    """Whether it can be matched: a host's name, an IP address, or ``*.`` and a name."""
    name = pattern.removeprefix("*.")
    return len(pattern) <= _PATTERN_LIMIT and _plain(name) == name.lower().rstrip(".")


def host_matches(host: str, pattern: str) -> bool:
    """``*.example.org`` matches every name below example.org, but not itself."""
    pattern = pattern.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return host == pattern


def _plain(host: str) -> str | None:
    """One spelling for each host; None where it is no host."""
    host = host.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        host = host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return host if _HOST.fullmatch(host) else None
