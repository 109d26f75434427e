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
from computeswarm.seller.gpus import scrub
from computeswarm.seller.gpus.keeper import GpuKeeper

MIB = 2**20
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
    assert scrub.overwrite(cuda, 0) == sum(cuda.zeroed.values()) == (700 + 4) * MIB
    assert not cuda.blocks and cuda.retained == 0
    assert scrub.main(cuda) == 0
    assert len(capsys.readouterr().out.split()) == 2
    cuda.fails = "sync"
    with pytest.raises(RuntimeError, match="cuCtxSynchronize failed with CUDA error 700"):
        scrub.overwrite(cuda, 0)
    assert cuda.retained == 0


async def test_what_could_not_be_cleaned_is_said() -> None:
    def keeper(code: str) -> GpuKeeper:
        return GpuKeeper((sys.executable, "-c", code))

    seen = "import os; print(len(os.environ['CUDA_VISIBLE_DEVICES'].split(',')))"
    assert await keeper(seen).clean([CARD]) == []
    assert await keeper("raise SystemExit(3)").clean([CARD]) == []  # no CUDA, so no job had any
    assert await keeper("1/0").clean([]) == []
    assert "ZeroDivisionError" in (await keeper("1/0").clean([CARD]))[0]
    assert await keeper("print(1)").clean([CARD, CARD]) == ["Only 1 of 2 could be found."]
    assert await GpuKeeper().clean([CARD]) in ([], ["Only 0 of 1 could be found."])


async def test_a_gpu_that_can_not_be_cleaned_takes_no_more_jobs(
    rig: Callable[..., AbstractAsyncContextManager[Rig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD, CARD))
    async with rig(config={"hardware": two, "slots": 1}) as r:
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "1/0"))
        first = await r.buy(spec(gpu_count=1))
        assert (await first.ended()).state is JobState.SUCCEEDED
        async with asyncio.timeout(30):
            while r.agent.running:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert r.agent.unwell_gpus() == {0}
        assert any("GPU 0 takes no more jobs" in e.text for e in r.agent.status().events)
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "print(1)"))
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
        r.agent.dispatcher.keeper = GpuKeeper((sys.executable, "-c", "print(1)"))
        monkeypatch.setattr(r.agent.machine, "foreign", dict)
        async with asyncio.timeout(30):
            while 1 in r.agent.dispatcher.unclean:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
