"""Slices of NVIDIA GPUs (MIG): a card so divided is offered as its slices, never as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from computeswarm.seller.gpus.backends import GpuFault


@dataclass(frozen=True, slots=True)
class SlicePlace:
    """Where the kernel driver has a slice: below ``gpu<minor>/mig/gi<instance>/ci<compute>``."""

    minor: int
    instance: int
    compute: int


def slices(nvml: Any, card: Any) -> list[Any] | None:
    """The handles of a card's slices with memory of their own, ``None`` for an undivided card.

    Raises NVML's own errors.
    """
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(card)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return None
        raise
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    found = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number))
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:
                raise
    # compute instances of one GPU instance share its memory: no wall between two buyers
    instances = [nvml.nvmlDeviceGetGpuInstanceId(part) for part in found]
    return [
        part
        for part, instance in zip(found, instances, strict=True)
        if instances.count(instance) == 1
    ]


def locate(uuid: str, nvml: Any = None) -> SlicePlace:
    """Ask the driver where a slice is.

    Raises:
        GpuFault: it is gone, or the driver does not answer.
    """
    if nvml is None:
        import pynvml  # type: ignore[import-untyped]

        nvml = pynvml
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            return SlicePlace(
                nvml.nvmlDeviceGetMinorNumber(card),
                nvml.nvmlDeviceGetGpuInstanceId(handle),
                nvml.nvmlDeviceGetComputeInstanceId(handle),
            )
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise GpuFault(
            f"The slice {uuid} is gone ({error}); restart the seller to detect GPUs anew."
        ) from error
