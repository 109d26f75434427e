"""Late imports leave the interpreter as it was."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import json, sys
from computeswarm.core.imports import import_late
before = sys.getrecursionlimit()
assert import_late("eth_account").Account
assert sys.getrecursionlimit() == before
try:
    json.loads("[" * 200_000)
except RecursionError:
    print("refused")
"""


def test_deep_json_is_still_refused_after_eth_account_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "refused", done.stderr
