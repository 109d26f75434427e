"""Versions of drivers and runtimes as integers, so that they compare part by part."""

from __future__ import annotations

import re

PARTS = 3
PART_BITS = 20
LARGEST_PART = 2**PART_BITS - 1
_VERSION = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)*", re.ASCII)
_TYPED = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})\Z", re.ASCII | re.IGNORECASE)


def version_number(text: str) -> int:
    """The first version in ``text`` as one integer that orders as versions do; 0 without any.

    ``550.54.14`` and ``CUDA 12.4`` are compared by their first three parts, each as a number: so
    550.54 comes before 550.144.
    """
    found = _VERSION.search(text[:200])
    return 0 if found is None else pack(_parts(found[0]), 0)


def version_span(text: str) -> tuple[int, int] | None:
    """The first and the last version that begin with what was typed; ``None``: it is none.

    ``550`` stands for all of 550, so that one is either before it, in it or after it.
    """
    typed = _TYPED.match(text)
    if typed is None:
        return None
    parts = _parts(typed[1])
    return pack(parts, 0), pack(parts, LARGEST_PART)


def pack(parts: tuple[int, ...], rest: int) -> int:
    """Up to three parts as one integer; ``rest`` stands for those that are missing."""
    number = 0
    for part in (*parts, *(rest,) * PARTS)[:PARTS]:
        number = number << PART_BITS | min(part, LARGEST_PART)
    return number


def version_text(number: int) -> str:
    """A packed version for the screen; empty for 0."""
    if number <= 0:
        return ""
    parts = [number >> PART_BITS * place & LARGEST_PART for place in reversed(range(PARTS))]
    return ".".join(str(part) for part in (parts if parts[2] else parts[:2]))


def _parts(text: str) -> tuple[int, ...]:
    # a stranger's part may have hundreds of digits; seven already exceed the largest
    return tuple(int(part.lstrip("0")[:7] or 0) for part in text.split(".")[:PARTS])
