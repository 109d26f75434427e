"""Between two buyers' jobs a GPU's memory is overwritten, or the GPU takes no more."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from seller_rig import Rig, spec

from computeswarm.core.nodes import GPUInfo, Hardware
from computeswarm.core.states import JobState
from computeswarm.seller import dispatch
from computeswarm.seller.gpus import scrub
from computeswarm.seller.gpus.keeper import GpuKeeper

MIB = 2**20
CLEANS = (sys.executable, "-c", "print(1, 1)")
CARD = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=2**34, uuid="GPU-0")


class FakeCuda:
    """As much of the driver as is used: one block of 700 MiB and one of 5 MiB are free."""

    def __init__(self) -> None:
        self.free = [700 * MIB, 5 * MIB]
        self.blocks: dict[int, int] = {}
        self.zeroed: dict[int, int] = {}
        self.retained = 0
        self.fails = ""

    def cuInit(self, _: int) -> int:
        return 100 if self.fails == "cuInit" else 0

    def cuDeviceGetCount(self, count: ctypes._CArgObject) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: ctypes._CArgObject, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDevicePrimaryCtxRetain(self, *_: object) -> int:
        self.retained += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, *_: object) -> int:
        self.retained -= 1
        return 0

    def cuMemGetInfo_v2(self, free: ctypes._CArgObject, total: ctypes._CArgObject) -> int:
        free._obj.value, total._obj.value = sum(self.free), 2**34
        return 0

    def cuCtxSetCurrent(self, *_: object) -> int:
        return 0

    def cuCtxSynchronize(self) -> int:
        return 700 if self.fails == "sync" else 0

    def cuMemAlloc_v2(self, pointer: ctypes._CArgObject, size: ctypes.c_size_t) -> int:
        for place, room in enumerate(self.free):
            if room >= size.value:
                self.free[place] -= size.value
                pointer._obj.value = len(self.blocks) + 1
                self.blocks[pointer._obj.value] = size.value
                return 0
        return 2

    def cuMemsetD8_v2(
        self, pointer: ctypes.c_uint64, value: ctypes.c_ubyte, size: ctypes.c_size_t
    ) -> int:
        assert value.value == 0
        self.zeroed[pointer.value] = size.value
        return 0

    def cuMemFree_v2(self, pointer: ctypes.c_uint64) -> int:
        self.free[0] += self.blocks.pop(pointer.value)
        return 0


def test_all_that_is_free_is_overwritten_and_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    cuda = FakeCuda()
    assert scrub.overwrite(cuda, 0) == ((700 + 4) * MIB, (700 + 5) * MIB)
    assert sum(cuda.zeroed.values()) == (700 + 4) * MIB
    assert not cuda.blocks and cuda.retained == 0
    assert scrub.main(cuda) == 0
    assert [len(line.split()) for line in capsys.readouterr().out.splitlines()] == [2, 2]
    cuda.fails = "sync"
    with pytest.raises(RuntimeError, match="cuCtxSynchronize failed with CUDA error 700"):
        scrub.overwrite(cuda, 0)
    assert cuda.retained == 0


async def test_what_could_not_be_cleaned_is_said() -> None:
    def keeper(code: str) -> GpuKeeper:
        return GpuKeeper((sys.executable, "-c", code))

    seen = "import os; [print(1, 1) for _ in os.environ['CUDA_VISIBLE_DEVICES'].split(',')]"
    assert await keeper(seen).clean([CARD]) == []
    assert await keeper("raise SystemExit(3)").clean([CARD]) == []  # no CUDA, so no job had any
    assert await keeper("1/0").clean([]) == []
    assert "ZeroDivisionError" in (await keeper("1/0").clean([CARD]))[0]
    assert await keeper("print(1, 1)").clean([CARD, CARD]) == ["Only 1 of 2 could be found."]
    (missed,) = await keeper("print(2**30, 2**33)").clean([CARD])
    assert missed == "7168 MiB of its free memory could not be overwritten."
    assert "No such file" in (await GpuKeeper(("/nowhere/python",)).clean([CARD]))[0]
    assert await GpuKeeper().clean([CARD]) in ([], ["Only 0 of 1 could be found."])


async def test_a_gpu_that_can_not_be_cleaned_takes_no_more_jobs(
    rig: Callable[..., AbstractAsyncContextManager[Rig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "GpuKeeper", lambda: GpuKeeper(CLEANS))
    two = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD, CARD))
    async with rig(config={"hardware": two, "slots": 1}) as r:
        assert r.agent.unwell_gpus() == set()
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "1/0"))
        first = await r.buy(spec(gpu_count=1))
        assert (await first.ended()).state is JobState.SUCCEEDED
        async with asyncio.timeout(30):
            while r.agent.running:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert r.agent.unwell_gpus() == {0}
        assert any("GPU 0 takes no more jobs" in e.text for e in r.agent.status().events)
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "print(1, 1)"))
        second = await r.buy(
            spec("import time\nprint(1, flush=True)\ntime.sleep(600)", gpu_count=1)
        )
        await second.first_output()
        place = r.agent.slots.place(second.job_id)
        assert place is not None and place.gpus == (1,)
        # whose owner plays there is cleaned afterwards: it takes all the memory that is free
        monkeypatch.setattr(r.agent.machine, "foreign", lambda: {1: "a game"})
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "1/0"))
        await second.call("POST", "/cancel")
        assert r.agent.unwell_gpus() == {0, 1}
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "print(1, 1)"))
        monkeypatch.setattr(r.agent.machine, "foreign", dict)
        async with asyncio.timeout(30):
            while 1 in r.agent.dispatcher.unclean:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_what_a_killed_seller_left_is_cleaned_before_the_first_job(
    rig: Callable[..., AbstractAsyncContextManager[Rig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "GpuKeeper", lambda: GpuKeeper((sys.executable, "-c", "1/0")))
    monkeypatch.setattr(dispatch, "_CLEAN_AGAIN_SECONDS", 0.0)
    one = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD,))
    async with rig(config={"hardware": one, "slots": 1}) as r:
        assert r.agent.unwell_gpus() == {0}
        job = await r.buy(spec(gpu_count=1))
        r.agent.dispatcher.keeper = GpuKeeper(CLEANS)
        assert (await job.ended()).state is JobState.SUCCEEDED  # it is tried again
        texts = [event.text for event in r.agent.status().events]
        assert sum("GPU 0 takes no more jobs" in text for text in texts) == 1


async def test_a_cleaning_that_is_broken_off_leaves_the_gpu_out(
    rig: Callable[..., AbstractAsyncContextManager[Rig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD,))
    monkeypatch.setattr(dispatch, "GpuKeeper", lambda: GpuKeeper(CLEANS))
    async with rig(config={"hardware": one, "slots": 1}) as r:

        async def breaks(_: object) -> list[str]:
            raise RuntimeError("never seen before")

        monkeypatch.setattr(r.agent.dispatcher.keeper, "clean", breaks)
        await (await r.buy(spec(gpu_count=1))).ended()
        async with asyncio.timeout(30):
            while r.agent.running:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert r.agent.unwell_gpus() == {0}
