"""π by throwing darts, with its error bar. Needs only Python.

    computeswarm run examples/monte_carlo.py
    computeswarm run examples/monte_carlo.py -- 20000000

The argument is the number of darts (4,000,000 unless given). Progress goes to stdout as it comes;
the last line is the result, which is also written to outputs/pi.json. The same number of darts
always gives the same result.
"""

import json
import math
import os
import random
import sys
import time

BATCHES = 20


def hits(darts, source):
    """How many of ``darts`` random points of the unit square lie inside the quarter circle."""
    draw = source.random
    return sum(draw() ** 2 + draw() ** 2 <= 1.0 for _ in range(darts))


def main():
    darts = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000
    source = random.Random(2024)
    started = time.monotonic()
    thrown = inside = 0
    for batch in range(1, BATCHES + 1):
        share = darts * batch // BATCHES - thrown
        inside += hits(share, source)
        thrown += share
        p = inside / thrown
        error = 4 * math.sqrt(p * (1 - p) / thrown)
        rate = thrown / (time.monotonic() - started) / 1e6
        print(
            f"{batch * 100 // BATCHES:3}%  pi = {4 * p:.6f} ± {error:.6f}  {rate:.1f} M/s",
            flush=True,
        )
    out = os.environ.get("COMPUTESWARM_OUTPUTS", "outputs")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "pi.json"), "w") as file:
        json.dump({"pi": 4 * p, "error": error, "darts": thrown, "inside": inside}, file)
    print(f"pi is {4 * p:.6f} ± {error:.6f} after {thrown:,} darts")


if __name__ == "__main__":
    main()
