"""``make bench``: each benchmark in a process of its own, one after the other.

python -m benchmarks [NAME]…
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

ALL = (
    "startup",
    "first_frame",
    "spawn",
    "first_line",
    "market",
    "discovery",
    "market_http",
    "live",
    "write_behind",
    "market_start",
    "payments",
    "channel_tick",
    "ledger",
    "log_view",
    "log_flow",
    "transfer",
    "gpu",
)


def main() -> int:
    names = sys.argv[1:] or [n for n in ALL if importlib.util.find_spec(f"benchmarks.{n}")]
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
