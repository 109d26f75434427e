"""Inputs that are uploaded after payment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from seller_rig import Rig, input_file, output_of, spec

from computeswarm.core.jobs import InputFile
from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
CAT = "import pathlib\nfor p in ('a.bin','d/b.bin','i'): print(len(pathlib.Path(p).read_bytes()))"
A, B = b"a" * 300_000, b"b" * 10


def job() -> dict[str, object]:
    """Two uploads, one inline input."""
    inline = InputFile.from_bytes("i", b"inline", inline=True).model_dump(mode="json")
    return spec(CAT, inputs=[input_file("a.bin", A), input_file("d/b.bin", B), inline])


async def test_the_job_starts_when_the_last_input_is_there(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(job())
        view = await bought.view()
        a, b = view.missing_inputs
        assert (await bought.call("PUT", f"/inputs/{a}", data=A)).status == 204
        view = await bought.view()
        assert view.missing_inputs == (b,) and view.state is JobState.QUEUED
        assert (await bought.call("PUT", f"/inputs/{b}", data=B)).status == 204
        events = [event async for event in bought.follow()]
        assert output_of(events) == b"300000\n10\n6\n"
        late = await bought.call("PUT", f"/inputs/{b}", data=B)
        assert late.status == 409
        assert not list((r.paths.seller / "inputs").rglob("*.part"))


async def test_wrong_bytes_are_refused_and_leave_nothing(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(job())
        a, b = (await bought.view()).missing_inputs
        wrong = await bought.call("PUT", f"/inputs/{b}", data=b"c" * 10)
        assert wrong.status == 400 and "announced" in wrong.json["detail"]
        short = await bought.call("PUT", f"/inputs/{a}", data=b"a" * 10)
        assert short.status == 400
        long = await bought.call("PUT", f"/inputs/{b}", data=b"b" * 11)
        assert long.status == 413

        async def endless():  # type: ignore[no-untyped-def]
            for _ in range(100):
                yield b"b" * 65536

        chunked = await bought.call("PUT", f"/inputs/{b}", data=endless())
        assert chunked.status == 413
        foreign = await bought.call("PUT", f"/inputs/{'0' * 64}", data=b"x")
        assert foreign.status in (404, 413)
        assert (await bought.call("PUT", "/inputs/..%2f..%2fx", data=b"x")).status in (400, 404)
        assert (await bought.view()).missing_inputs == (a, b)
        assert not list((r.paths.seller / "inputs").rglob("*.part"))


async def test_inputs_that_never_come_end_the_job_with_a_full_refund(rig: OpenRig) -> None:
    async with rig(config={"inputs_seconds": 0.1}) as r:
        before = await r.balance()
        bought = await r.buy(job())
        view = await bought.ended()
        assert view.state is JobState.FAILED and "input" in view.reason
        await r.refunded(bought)
        assert await r.balance() == before
        assert (await bought.call("GET", "/outputs")).json["files"] == []


async def test_a_job_that_waits_for_inputs_blocks_nobody(rig: OpenRig) -> None:
    async with rig() as r:
        waiting = await r.buy(job())
        ready = await r.buy(spec())
        assert (await ready.ended()).state is JobState.SUCCEEDED
        assert (await waiting.view()).state is JobState.QUEUED
