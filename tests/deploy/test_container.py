"""The container file: built by a real engine, and a seller in it that sells jobs beside it."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cli_program import free_port, run, serving
from docker_engine import ask

from computeswarm.seller.images import host_python
from computeswarm.seller.images.root import write_root

REPOSITORY = Path(__file__).resolve().parents[2]
CONTAINERFILE = "deploy/Containerfile"
SOURCES = ("computeswarm", "requirements/run.lock", "pyproject.toml", "README.md", CONTAINERFILE)
WAIT = 120.0
JOB_USER = 65532


class _Line(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=600)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _send(engine: str, path: str, data: Any, **query: str) -> list[dict[str, Any]]:
    """A POST of a tar archive; what the engine said, an object a line."""
    line = _Line(engine)
    headers = {"Content-Type": "application/x-tar"}
    line.request("POST", f"{path}?{urlencode(query)}", data, headers, encode_chunked=True)
    said = line.getresponse().read().decode()
    line.close()
    return [json.loads(each) for each in said.splitlines() if each.strip()]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The locked packages, as for a machine without an index."""
    folder = tmp_path_factory.mktemp("wheels")
    argv = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    argv += ["--require-hashes", "-r", str(REPOSITORY / "requirements/run.lock"), "-d", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the locked packages can't be had: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def image(
    docker_engine: str, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The seller's image, on a base made from this machine's Python instead of a registry's."""
    python = host_python()
    base = tmp_path_factory.mktemp("base") / "base.tar"
    with base.open("wb") as out:
        write_root(out, python.python, python.prefix)
    with tarfile.open(base, "a") as tar:
        _add_pip(tar, python.prefix)
    with base.open("rb") as data:
        path = f"{python.python.parent}:/usr/bin:/bin"
        said = _send(
            docker_engine,
            "/images/create",
            data,
            fromSrc="-",
            repo="computeswarm/test-base",
            tag="t",
            changes=f"ENV PATH={path}",
        )
    assert "error" not in said[-1], said
    arguments = {
        "BASE": "computeswarm/test-base:t",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/src",
    }
    said = _send(
        docker_engine,
        "/build",
        _context(wheels),
        dockerfile=CONTAINERFILE,
        t="computeswarm/test-seller:t",
        networkmode="none",
        buildargs=json.dumps(arguments),
        rm="1",
        forcerm="1",
    )
    assert not any("error" in each for each in said), said[-3:]
    yield "computeswarm/test-seller:t"
    for name in ("computeswarm/test-seller:t", "computeswarm/test-base:t"):
        ask(docker_engine, "DELETE", f"/images/{name}?force=1")


def _add_pip(tar: tarfile.TarFile, prefix: Path) -> None:
    """What ``python -m venv`` and a seller need (and Debian has), and a job does not."""
    tar.add("/usr/bin/ldd", "usr/bin/ldd")
    for module in prefix.glob("lib/python3.*/ensurepip"):
        for file in sorted(module.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                tar.add(file, str(file).lstrip("/"))


def _context(wheels: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in SOURCES:
            tar.add(
                REPOSITORY / name,
                name,
                filter=lambda info: None if "__pycache__" in info.name else info,
            )
        tar.add(wheels, "deploy/wheels")
    return packed.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the container's user")
def test_a_seller_in_a_container_sells_jobs_beside_it(
    image: str, docker_engine: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        buyer_home, made = tmp_path / "buyer", tmp_path / "made"
        wallets = [
            run("wallet", "new", "--json", home=home, COMPUTESWARM_PASSWORD="pw").json["address"]
            for home in (made, buyer_home)
        ]
        funds = [flag for wallet in wallets for flag in ("--fund", wallet)]
        devnet, _ = stack.enter_context(
            serving("devnet", "--json", "--port", free_port(), *funds, home=tmp_path / "chain")
        )
        market, _ = stack.enter_context(
            serving("market", "--json", "--port", free_port(), home=tmp_path / "market")
        )
        # the folder has the same path on both sides, as the engine is told paths in it
        state = Path("/var/lib") / f"computeswarm-test-{os.getpid()}"
        state.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        shutil.copy(made / "wallet.json", state)
        (state / "password").write_text("pw\n")
        for path in (state, *state.iterdir()):
            os.chown(path, JOB_USER, JOB_USER)
        container = _create(docker_engine, image, state, devnet["rpc"], market["market"])
        stack.callback(ask, docker_engine, "DELETE", f"/containers/{container}?force=1&v=1")
        assert ask(docker_engine, "POST", f"/containers/{container}/start")[0] == 204

        buyer: dict[str, Any] = {
            "home": buyer_home,
            "COMPUTESWARM_PASSWORD": "pw",
            "COMPUTESWARM_MARKET": market["market"],
            "COMPUTESWARM_RPC": devnet["rpc"],
        }
        record = _listed(buyer, docker_engine, container)
        assert record["isolation"] == "container"
        script = tmp_path / "who.py"
        script.write_text(
            "import os\nopen('outputs/kept', 'w').write('kept')\n"
            "print('hello', os.path.exists('/.dockerenv'))\n"
        )
        done = run(
            *("run", "--yes", "--output", str(tmp_path / "got"), str(script)), limit=WAIT, **buyer
        )
        told = done.out + done.err + _log(docker_engine, container)
        assert (done.code, done.out.splitlines()[:1]) == (0, ["hello True"]), told
        assert (tmp_path / "got/kept").read_text() == "kept"
        assert ask(docker_engine, "POST", f"/containers/{container}/stop?t=60")[0] == 204
        told = json.loads(ask(docker_engine, "GET", f"/containers/{container}/json")[1])
        assert told["State"]["ExitCode"] == 0, _log(docker_engine, container)


def _create(engine: str, image: str, state: Path, rpc: str, market: str) -> str:
    """As docs/selling.md says, with the test's own addresses."""
    environment = {
        "COMPUTESWARM_HOME": str(state),
        "COMPUTESWARM_PASSWORD_FILE": f"{state}/password",
        "COMPUTESWARM_RPC": rpc,
        "COMPUTESWARM_MARKET": market,
        "COMPUTESWARM_HOST": "127.0.0.1",
        "COMPUTESWARM_PORT": free_port(),
        "COMPUTESWARM_EXECUTOR": "docker",
        "DOCKER_HOST": f"unix://{engine}",
        "TMPDIR": str(state),
    }
    body = {
        "Image": image,
        "Cmd": ["seller", "--headless"],
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "HostConfig": {
            "NetworkMode": "host",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": {"/tmp": ""},
            "Binds": [f"{state}:{state}", f"{engine}:{engine}"],
            "GroupAdd": [str(Path(engine).stat().st_gid)],
        },
    }
    status, said = ask(engine, "POST", "/containers/create", body)
    assert status == 201, said
    return str(json.loads(said)["Id"])


def _listed(buyer: dict[str, Any], engine: str, container: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        nodes = run("nodes", "--json", **buyer).json["nodes"]
        if nodes:
            record: dict[str, Any] = nodes[0]["record"]
            return record
        time.sleep(0.5)
    raise AssertionError(_log(engine, container))


def _log(engine: str, container: str) -> str:
    path = f"/containers/{container}/logs?stdout=1&stderr=1"
    return ask(engine, "GET", path)[1].decode(errors="replace")[-2000:]
