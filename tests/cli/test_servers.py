"""``market``, ``devnet``, ``images`` and ``seller`` as programs use them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cli_program import free_port, run, serving
from node_records import node_record

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import RECORD_KIND
from computeswarm.core.sessions import enrol
from computeswarm.core.signing import Signed

if TYPE_CHECKING:
    from computeswarm.chain.devnet import Devnet

WAIT = 60.0


def _get(url: str) -> object:
    with urlopen(url, timeout=30) as reply:
        return json.load(reply)


def test_market_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    with serving(
        "market", "--json", "--port", free_port(), "--host", "127.0.0.1", home=tmp_path
    ) as (
        ready,
        process,
    ):
        assert ready["chain_id"] == 84532
        assert _get(ready["market"] + "/health")["status"] == "ok"  # type: ignore[index]
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
    assert (tmp_path / "market/market.db").exists()


def test_devnet_answers_and_funds_whom_it_is_told_to(tmp_path: Path) -> None:
    stranger = "0x" + "12" * 20
    flags = ("--json", "--engine", "py-evm", "--port", free_port(), "--fund", stranger)
    with serving("devnet", *flags, home=tmp_path) as (ready, _):
        assert ready["engine"] == "py-evm"
        assert len(ready["accounts"]) == 6
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance"}
        request = Request(
            ready["rpc"],
            json.dumps({**body, "params": [stranger, "latest"]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as reply:
            assert int(json.load(reply)["result"], 16) == 10_000 * 10**18


def test_images_lists_what_can_be_had_and_checks_what_there_is(tmp_path: Path) -> None:
    listed = run("images", "list", "--json", home=tmp_path).json["images"]
    assert {image["name"]: image["ready"] for image in listed} == {
        "python": True,
        "python-ml": False,
    }
    assert run("images", "check", "python", home=tmp_path).code == 0
    missing = run("images", "check", "python-ml", "--json", home=tmp_path)
    assert missing.code == 125
    assert "images build python-ml" in missing.json["images"][0]["problems"][0]


def test_an_odd_package_never_reaches_pip(tmp_path: Path) -> None:
    done = run("images", "build", "mine", "git+https://example.org/x", home=tmp_path)
    assert done.code == 125
    assert "package" in done.one_sentence()


def test_a_seller_without_a_wallet_is_told_how_to_make_one(tmp_path: Path) -> None:
    done = run("seller", "--headless", home=tmp_path)
    assert done.code == 125
    assert "wallet new" in done.one_sentence()


def test_a_seller_without_gas_says_what_it_waits_for(tmp_path: Path, module_devnet: Devnet) -> None:
    address = run("wallet", "new", "--json", home=tmp_path, COMPUTESWARM_PASSWORD="pw").json[
        "address"
    ]
    flags = ("--headless", "--json", "--rpc", module_devnet.url, "--port", free_port())
    with serving("seller", *flags, home=tmp_path, COMPUTESWARM_PASSWORD="pw") as (_, process):
        assert process.stderr is not None
        said = ""
        while "Ctrl+C" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
    assert "will take jobs at http://" in said
    assert f"once {address} has ETH" in said


def test_a_market_goes_by_the_names_it_is_told(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    where = ("--port", free_port(), "--public-urls", "https://a.test, http://B.test:80/")
    with serving("market", "--json", *where, home=tmp_path) as (ready, _):

        def register(name: str, market: str) -> int:
            record = node_record(key.address, name, issued_at=int(time.time()))
            signed = Signed.make(key, RECORD_KIND, 84532, record)
            enrolment, _ = enrol(key, signed, market, time.time())
            request = Request(
                ready["market"] + "/api/v1/nodes/register",
                enrolment.model_dump_json().encode(),
                {"Content-Type": "application/json"},
            )
            try:
                with urlopen(request, timeout=30) as reply:
                    return int(reply.status)
            except HTTPError as error:
                assert b"set your market to that" in error.read()
                return error.code

        assert register("one", "https://a.test:443/") == 201
        assert register("two", "http://b.test") == 201
        assert register("three", ready["market"]) == 422
