"""After a real buyer's job at a real seller, nothing of its content is anywhere at the market."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from demo_fixtures import Demo

PLACES = ("script", "argument", "environment", "secret", "printed", "written", "filename")


def test_a_markets_files_and_answers_hold_nothing_of_a_job(demo: Demo, tmp_path: Path) -> None:
    marks = {place: f"{place}{secrets.token_hex(8)}" for place in PLACES}
    script = tmp_path / f"{marks['filename']}.py"
    script.write_text(
        f"# {marks['script']}\n"
        "import os, pathlib, sys\n"
        f"print({marks['printed'][:9]!r} + {marks['printed'][9:]!r}, os.environ['MARK'])\n"
        "folder = pathlib.Path(os.environ['COMPUTESWARM_OUTPUTS'])\n"
        f"(folder / 'out.txt').write_text({marks['written']!r})\n"
    )
    done = demo.cli(
        *("run", "--json", "--yes", "--env", f"MARK={marks['environment']}"),
        *("--secret", "TOKEN"),
        str(script),
        "--",
        marks["argument"],
        TOKEN=marks["secret"],
    )
    assert done.code == 0, done.out
    assert marks["printed"] in done.out
    job_id = json.loads(done.out.splitlines()[-1])["job_id"]
    # the market knows of it, so its files are the right ones to look into
    assert demo.market(f"/api/v1/jobs/{job_id}")["state"] == "succeeded"
    history = demo.cli("jobs", "--history", "--json")
    assert [job["job_id"] for job in json.loads(history.out)["jobs"]].count(job_id) == 1
    files = [path for path in (demo.home / "market").rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    assert job_id.encode() in kept
    answers = json.dumps([demo.market(path) for path in ("/api/v1/nodes", "/api/v1/stats")])
    for mark in marks.values():
        assert mark.encode() not in kept
        assert mark not in answers + history.out
