"""Runs as a program of its own between two jobs: overwrites all free memory of the GPUs it sees.

``python -I -S scrub.py``, with CUDA_VISIBLE_DEVICES naming them. A driver does not promise to hand
out memory that is zeroed, so what one buyer's job left there could be read by the next one's.
It speaks to CUDA's driver library alone: torch takes seconds to load and may not be installed.

It imports nothing of this project: it has to start within milliseconds. Prints the bytes that it
overwrote on each GPU and those that were free, a line each. Exit status 3: there is no CUDA.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

NO_CUDA = 3
_LARGEST, _SMALLEST = 2**30, 2**21


def checked(code: int, what: str) -> None:
    """Raises RuntimeError: CUDA refused."""
    if code:
        raise RuntimeError(f"{what} failed with CUDA error {code}")


def overwrite(cuda: Any, index: int) -> tuple[int, int]:
    """Bytes of one GPU that are zero now, and those that were free."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    checked(cuda.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    checked(
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain"
    )
    try:
        checked(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        checked(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
        held: list[tuple[ctypes.c_uint64, int]] = []
        size = _LARGEST
        while size >= _SMALLEST:
            pointer = ctypes.c_uint64()
            if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)):
                size //= 2  # no block of that size is left
                continue
            held.append((pointer, size))
            checked(cuda.cuMemsetD8_v2(pointer, ctypes.c_ubyte(0), ctypes.c_size_t(size)), "memset")
        checked(cuda.cuCtxSynchronize(), "cuCtxSynchronize")
        for pointer, _ in held:
            checked(cuda.cuMemFree_v2(pointer), "cuMemFree")
        return sum(size for _, size in held), free.value
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)


def main(cuda: Any = None) -> int:
    """Every GPU in turn."""
    try:
        cuda = cuda or ctypes.CDLL("libcuda.so.1")
    except OSError:
        return NO_CUDA
    count = ctypes.c_int()
    checked(cuda.cuInit(0), "cuInit")
    checked(cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    for index in range(count.value):
        done, free = overwrite(cuda, index)
        sys.stdout.write(f"{done} {free}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
