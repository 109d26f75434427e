"""``run --stream-outputs``: files are on the buyer's disk while the job still runs."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from cli_program import command, environment
from demo_fixtures import Demo

WAIT = 60.0
SCRIPT = """
import os, time
def put(name, text):
    with open(f"outputs/{name}.part", "w") as file:
        file.write(text)
    os.rename(f"outputs/{name}.part", f"outputs/{name}")
put("first", "one")
print("up", flush=True)
while not os.path.exists("outputs/stop"):
    time.sleep(0.1)
    if time.monotonic() > END: break
put("first", "two")
put("second", "2")
"""


def test_files_come_while_the_job_runs_and_newer_ones_replace_them(
    demo: Demo, tmp_path: Path
) -> None:
    script, got = tmp_path / "job.py", tmp_path / "got"
    script.write_text(f"import time\nEND = time.monotonic() + 8\n{SCRIPT}")
    process = subprocess.Popen(
        command("run", "--yes", "--stream-outputs", "--output", str(got), str(script)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(demo.home),
    )
    try:
        deadline = time.monotonic() + WAIT
        first = got / "first"
        while not (first.exists() and first.read_text() == "one"):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the file did not come"
            time.sleep(0.05)
        assert process.poll() is None  # the job runs on
        out, err = process.communicate(timeout=WAIT)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert out == "up\n"
    assert (first.read_text(), (got / "second").read_text()) == ("two", "2")
    assert sorted(path.name for path in got.iterdir()) == ["first", "second"]


def test_it_needs_a_place_for_the_files(demo: Demo) -> None:
    done = demo.cli("run", "--yes", "--stream-outputs", "examples/monte_carlo.py")
    assert done.code == 125
    assert "--output DIR" in done.one_sentence()


def test_files_of_the_buyers_are_replaced_only_if_he_says_so(demo: Demo, tmp_path: Path) -> None:
    script, got, data = tmp_path / "job.py", tmp_path / "got", tmp_path / "data.bin"
    script.write_text("open('outputs/o', 'w').write('theirs')")
    data.write_bytes(b"x" * 300_000)
    got.mkdir()
    (got / "o").write_text("mine")
    options = ("--yes", "--output", str(got), "--input", str(data))
    done = demo.cli("run", *options, str(script))
    assert done.code == 0 and "holds other files of the same names (o)" in done.err
    assert (got / "o").read_text() == "mine"
    job_id = next(line.split()[1] for line in done.err.splitlines() if line.startswith("Job "))
    refused = demo.cli("outputs", job_id, "--output", str(got))
    assert refused.code == 125 and "--overwrite" in refused.one_sentence()
    assert demo.cli("outputs", job_id, "--output", str(got), "--overwrite").code == 0
    assert (got / "o").read_text() == "theirs"
    again = demo.cli("run", *options, str(script))
    assert again.code == 0 and "1 of 1 inputs are already there" in again.err
