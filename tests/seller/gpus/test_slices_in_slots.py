"""What a job for several GPUs gets on a machine with divided cards."""

from __future__ import annotations

from computeswarm.core.jobs import JobSpec
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.slots import Slots, fits

GIB = 2**30


def gpu(uuid: str, gib: int) -> GPUInfo:
    return GPUInfo(vendor="nvidia", model="A100", memory_bytes=gib * GIB, uuid=uuid)


def job(gpu_count: int, min_gib: int = 0) -> JobSpec:
    return JobSpec.model_validate(
        {
            "command": ["true"],
            "max_seconds": 60,
            "gpu_count": gpu_count,
            "min_vram_bytes": min_gib * GIB,
        }
    )


def test_several_gpus_are_whole_ones() -> None:
    cards = [gpu("MIG-a", 10), gpu("MIG-b", 20), gpu("GPU-0", 80), gpu("GPU-1", 80)]
    slots = Slots(9, cards, 2**50)
    two, one = job(2), job(1)
    assert [fits(card, two) for card in cards] == [False, False, True, True]
    place = slots.take("two", two)
    assert place is not None and place.gpus == (2, 3)
    assert slots.possible(two)
    assert not slots.possible(job(3))
    place = slots.take("small", one)
    assert place is not None and place.gpus == (0,)
    assert slots.take("large", job(1, min_gib=15)) == slots.place("large") is not None
    assert slots.holder(1) == "large"
    assert slots.take("late", one) is None
