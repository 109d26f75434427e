"""``computeswarm --help`` against ``python -c pass``, run alternately.

python -m benchmarks.startup [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

GOAL = 3.0
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "computeswarm --help": [sys.executable, "-m", "computeswarm", "--help"],
    "computeswarm run --help": [sys.executable, "-m", "computeswarm", "run", "--help"],
}


def once(argv: list[str]) -> float:
    """Seconds from start to end of one process."""
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, argv in COMMANDS.items():
            times[name].append(once(argv))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["python -c pass"]
    for name, seconds in medians.items():
        print(f"{name:24} {seconds * 1000:6.1f} ms  {seconds / base:5.2f} x")
    print(f"--help is {medians['computeswarm --help'] / base:.2f} x python -c pass (goal {GOAL:g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
