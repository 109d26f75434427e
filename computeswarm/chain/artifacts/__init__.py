"""Compiled contracts, built by ``contracts/build.mjs``."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def load_artifact(name: str) -> dict[str, Any]:
    """The artifact of a contract: ``abi``, ``bytecode`` (its creation code) and where it's from."""
    found = resources.files(__name__).joinpath(f"{name}.json").read_text("utf-8")
    artifact: dict[str, Any] = json.loads(found)
    return artifact
