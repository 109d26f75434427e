"""Inputs and outputs on a real line: resumed, kept for the next job, streamed while a job runs."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from lone_seller import moved, seller_process
from seller_rig import Bought, Rig, input_file, open_rig, output_of, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.events import FilesEvent
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
DATA = random.Random(3).randbytes(5_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
SHOW = "import hashlib; print(hashlib.sha256(open('x','rb').read()).hexdigest())"


def job(code: str = SHOW, **changes: Any) -> dict[str, Any]:
    return spec(code, inputs=[input_file("x", DATA)], **changes)


async def send(bought: Bought, start: int, stop: int, data: bytes = DATA) -> Any:
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return await bought.call("PUT", f"/inputs/{DIGEST}", data=data[start:stop], headers=headers)


async def received(bought: Bought) -> int:
    head = await bought.call("HEAD", f"/inputs/{DIGEST}")
    assert (head.status, head.headers["Upload-Length"]) == (200, str(len(DATA)))
    return int(head.headers["Upload-Offset"])


async def break_off(bought: Bought, after: int) -> None:
    """An upload whose line breaks."""

    async def some() -> Any:
        yield DATA[:after]
        raise ConnectionError

    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        headers = {"Content-Length": str(len(DATA))}
        await bought.call("PUT", f"/inputs/{DIGEST}", data=some(), headers=headers)


async def test_an_upload_goes_on_after_a_broken_line_and_after_kill_9(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with seller_process(devnet, tmp_path) as (process, r):
        bought = await r.buy(job())
        assert await received(bought) == 0
        await break_off(bought, 2_000_000)
        async with asyncio.timeout(30):
            while (here := await received(bought)) == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert here <= 2_000_000
        reply = await send(bought, here, 3_000_000)
        assert reply.status == 202 and reply.json["received"] == 3_000_000
        wrong = await send(bought, 3_500_000, 4_000_000)
        assert wrong.status == 409 and wrong.json["received"] == 3_000_000
        process.kill()
        await process.wait()
    async with open_rig(devnet, tmp_path) as again:
        bought = moved(bought, again)
        assert await received(bought) == 3_000_000
        assert (await send(bought, 3_000_000, len(DATA))).status == 204
        assert await received(bought) == len(DATA)
        events = [event async for event in bought.follow()]
        assert output_of(events).decode().strip() == DIGEST


async def test_a_resumed_upload_of_other_bytes_is_refused_whole(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(job())
        assert (await send(bought, 0, 1_000_000)).status == 202
        bad = await send(bought, 1_000_000, len(DATA), DATA[:-1] + b"?")
        assert bad.status == 400 and "announced" in bad.json["detail"]
        assert await received(bought) == 0
        for text in (
            "bytes 0-10/11",
            f"bytes 5-2/{len(DATA)}",
            "bytes x",
            f"items 0-1/{len(DATA)}",
        ):
            headers = {"Content-Range": text}
            reply = await bought.call("PUT", f"/inputs/{DIGEST}", data=b"x", headers=headers)
            assert reply.status == 400, text


async def test_an_input_is_kept_for_the_same_wallet_only_and_no_job_changes_it(
    devnet: Devnet, tmp_path: Path
) -> None:
    both = [devnet.keys[0].address, devnet.keys[2].address]
    code = SHOW + "; import os; os.chmod('x', 0o600); open('x','r+b').write(b'changed')"
    async with open_rig(devnet, tmp_path, trusted=both, keep_inputs=3600) as r:
        first = await r.buy(job(code))
        assert (await send(first, 0, len(DATA))).status == 204
        assert (await first.ended()).state is JobState.SUCCEEDED
        quote = Quote.model_validate((await r.quote(job())).document)
        assert (quote.keep_inputs_seconds, quote.keep_outputs_seconds) == (3600, 86400)
    async with open_rig(devnet, tmp_path, trusted=both, keep_inputs=3600) as r:  # after a restart
        second = await r.buy(job())
        events = [event async for event in second.follow()]
        assert output_of(events).decode().strip() == DIGEST  # and was never sent
        # another wallet learns nothing of it, and gets nothing
        mine, r.buyer = r.buyer, devnet.keys[2]
        theirs = await r.buy(job())
        assert (await theirs.view()).missing_inputs == (DIGEST,)
        assert await received(theirs) == 0
        await theirs.call("POST", "/cancel")
        r.buyer = mine


async def test_inputs_go_when_their_time_is_over_and_the_oldest_for_want_of_room(
    rig: OpenRig,
) -> None:
    small = [bytes([n]) * 1_000_000 for n in range(3)]

    async def run(r: Rig, n: int) -> tuple[str, ...]:
        """What had to be sent."""
        bought = await r.buy(spec("print(1)", inputs=[input_file("x", small[n])]))
        missing = (await bought.view()).missing_inputs
        for digest in missing:
            assert (await bought.call("PUT", f"/inputs/{digest}", data=small[n])).status == 204
        assert (await bought.ended()).state is JobState.SUCCEEDED
        return missing

    async with rig(config={"upload_bytes": 2_500_000}) as r:
        assert len(await run(r, 0)) == len(await run(r, 1)) == 1
        assert await run(r, 0) == ()
        assert len(await run(r, 2)) == 1  # in the place of 1, which was not used for longest
        assert await run(r, 0) == ()
        assert len(await run(r, 1)) == 1
        files = list((r.paths.seller / "inputs").rglob("*"))
        assert sum(f.stat().st_size for f in files if f.is_file()) <= 2_500_000
    async with rig(keep_inputs=0) as r:
        async with asyncio.timeout(30):
            while [f for f in (r.paths.seller / "inputs").rglob("*") if f.is_file()]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(await run(r, 1)) == 1
        assert not [f for f in (r.paths.seller / "inputs").rglob("*") if f.is_file()]


async def test_an_output_is_fetched_in_parts_of_one_version(rig: OpenRig) -> None:
    code = "open('outputs/o','wb').write(bytes(range(256))*4000); open('outputs/e','w')"
    whole = bytes(range(256)) * 4000
    async with rig() as r:
        bought = await r.buy(spec(code))
        await bought.ended()
        reply = await bought.call("GET", "/outputs/o")
        tag = reply.headers["ETag"]
        assert (reply.status, reply.body) == (200, whole)
        assert tag == f'"{hashlib.sha256(whole).hexdigest()}"'
        rest = await bought.call("GET", "/outputs/o", headers={"Range": "bytes=1000-"})
        assert (rest.status, rest.body) == (206, whole[1000:])
        assert rest.headers["Content-Range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"
        some = {"Range": "bytes=5-9"}
        same = await bought.call("GET", "/outputs/o", headers={**some, "If-Range": tag})
        assert (same.status, same.body) == (206, whole[5:10])
        other = await bought.call("GET", "/outputs/o", headers={**some, "If-Range": '"x"'})
        assert (other.status, other.body) == (200, whole)
        gone = await bought.call("GET", "/outputs/o", headers={"If-Match": '"x"'})
        assert (gone.status, gone.json["code"]) == (412, "other_version")
        head = await bought.call("HEAD", "/outputs/o")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(whole)))
        empty = await bought.call("GET", "/outputs/e")
        assert (empty.status, empty.body) == (200, b"")


STREAMED = """
import os, time
open('outputs/done', 'w').write('one')
os.symlink('/etc/passwd', 'outputs/link')
os.mkfifo('outputs/fifo')
n = 0
while not os.path.exists('outputs/stop'):
    n += 1
    open('outputs/busy', 'w').write(str(n))
    time.sleep(0.05)
    if n == 100: open('outputs/done', 'w').write('two!')
    if n > 600: break
os.remove('outputs/done')
open('outputs/end', 'w').write('end')
"""


async def test_settled_outputs_come_while_the_job_runs(rig: OpenRig) -> None:
    async with rig() as r:
        plain = await r.buy(spec("import time; time.sleep(60)"))
        await plain.until(lambda view: view.state is JobState.RUNNING)
        assert (await plain.call("GET", "/outputs")).status == 409
        await plain.call("POST", "/cancel")
        bought = await r.buy(spec(STREAMED, stream_outputs=True))
        versions: list[tuple[str, str]] = []
        async with asyncio.timeout(60):
            async for event in bought.follow():
                if isinstance(event, FilesEvent):
                    for file in event.files:
                        reply = await bought.call("GET", f"/outputs/{file.path}")
                        versions.append((file.path, reply.body.decode()))
                        assert hashlib.sha256(reply.body).hexdigest() == file.sha256
                        listed = (await bought.call("GET", "/outputs")).json
                        assert file.model_dump() in listed["files"] and not listed["final"]
                    if len(versions) == 2:
                        break
        assert versions == [("done", "one"), ("done", "two!")]
        assert (await bought.call("GET", "/outputs/link")).status == 404
        await bought.call("POST", "/cancel")
        assert (await bought.view()).state is JobState.CANCELLED
        listed = (await bought.call("GET", "/outputs")).json
        assert listed["final"] and "busy" in [file["path"] for file in listed["files"]]
        assert not (r.paths.seller / "live" / bought.job_id).exists()


@pytest.mark.parametrize("how", ["failed", "timed_out", "cancelled"])
async def test_outputs_are_kept_however_the_job_ends(rig: OpenRig, how: str) -> None:
    code = "import time,sys\nopen('outputs/o','w').write('kept')\nprint('up',flush=True)\n"
    code += "sys.exit(3)" if how == "failed" else "time.sleep(60)"
    async with rig() as r:
        bought = await r.buy(spec(code, max_seconds=2 if how == "timed_out" else 60))
        await bought.first_output()
        if how == "cancelled":
            await bought.call("POST", "/cancel")
        assert str((await bought.ended()).state) == how
        assert (await bought.call("GET", "/outputs/o")).body == b"kept"
