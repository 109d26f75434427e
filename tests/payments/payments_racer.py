"""One of several processes that pay with the same wallet at once; run by ``test_payments_race``.

    python payments_racer.py JOURNAL GO NAME

Signs for as many slices as the guard allows, once the file GO is there, and prints the nonces.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from payments_purse import KEY, POLICY, challenge, purpose

from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.errors import PolicyRefused
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.payer import Payer


def main(journal: str, go: str, name: str) -> None:
    """Pay the slices that all want, and then a job of one's own."""
    payer = Payer(KEY, BASE_SEPOLIA, PaymentJournal(Path(journal)), POLICY, SystemClock())
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.001)
    found: dict[str, list[str]] = {"shared": [], "own": []}
    refused: list[str] = []
    for index in range(6):
        for kind, job in (("shared", "job-shared"), ("own", f"job-{name}")):
            try:
                payment = payer.authorize(purpose(job_id=job, slice=index), challenge(300))
            except PolicyRefused as error:
                refused.append(error.extra["rule"])
            else:
                found[kind].append(payment.nonce)
    print(json.dumps({**found, "refused": refused}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
