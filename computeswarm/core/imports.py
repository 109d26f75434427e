"""Importing what is heavy, late, without its side effects."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def import_late(name: str) -> ModuleType:
    """Import a module where it is needed, and put the recursion limit back afterwards.

    py_ecc, which eth_account, eth_keyfile and web3 pull in, lifts the limit to 100,000: from then
    on a stranger's JSON of 100,000 brackets overruns the C stack and kills the process, where it
    should have been a ``RecursionError``.
    """
    limit = sys.getrecursionlimit()
    try:
        return importlib.import_module(name)
    finally:
        sys.setrecursionlimit(limit)
