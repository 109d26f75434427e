"""Several processes, one wallet: the terminal app, the command line and whatever else pays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from payments_purse import POLICY

from computeswarm.payments.journal import PaymentJournal

RACERS = 4


def test_caps_hold_over_processes_and_one_purpose_is_signed_once(tmp_path: Path) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    argv = [sys.executable, str(here / "payments_racer.py"), str(tmp_path / "payments.db")]
    go = tmp_path / "go"
    racers = [
        subprocess.Popen(
            [*argv, str(go), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        for number in range(RACERS)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        go.touch()
        said = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()

    journal = PaymentJournal(tmp_path / "payments.db")
    rows = [p for job in ("shared", *range(RACERS)) for p in journal.of_job(f"job-{job}")]
    journal.close()
    shared = [p.nonce for p in rows if p.job_id == "job-shared"]
    assert sum(p.amount for p in rows) == POLICY.max_day // 300 * 300  # the cap, and no atom more
    assert len({(p.job_id, p.slice) for p in rows}) == len(rows)
    assert any("max_day" in racer["refused"] for racer in said)
    for racer in said:
        assert set(racer["shared"]) <= set(shared)
    # what was handed out is what was stored
    handed = {nonce for racer in said for kind in ("shared", "own") for nonce in racer[kind]}
    assert handed == {p.nonce for p in rows}
