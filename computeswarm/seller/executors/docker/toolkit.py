"""NVIDIA's container toolkit: old versions let a job out of its container."""

from __future__ import annotations

import re
import shutil
import subprocess

from computeswarm.seller.executors.base import Problem

FLOOR = (1, 17, 8)
"""The first without CVE-2024-0132, CVE-2025-23359 and CVE-2025-23266."""
_PROGRAMS = ("nvidia-ctk", "nvidia-container-cli")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_SECONDS = 20


def toolkit_problems() -> list[Problem]:
    """Why NVIDIA cards can't be given to containers; empty means they can."""
    floor = ".".join(map(str, FLOOR))
    program = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        return [
            Problem(
                "nvidia-container-toolkit isn't installed.",
                f"Install version {floor} or newer from NVIDIA's package repository.",
            )
        ]
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Problem(f"{program} doesn't work ({error}).", "Install the toolkit anew.")]
    numbers = _VERSION.search(said)
    version = tuple(int(part) for part in numbers.groups()) if numbers else ()
    if version >= FLOOR:
        return []
    is_ = ".".join(map(str, version)) or "of an unknown version"
    return [
        Problem(
            f"nvidia-container-toolkit is {is_}; versions before {floor} let jobs out.",
            "Update the package nvidia-container-toolkit.",
        )
    ]
