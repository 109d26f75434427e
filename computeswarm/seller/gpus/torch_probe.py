"""Asking torch which GPUs it sees, in a child process.

Importing torch takes more than a second and holds a CUDA context for as long as the process lives;
neither belongs in the agent.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys

from pydantic import TypeAdapter, ValidationError

from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.gpus.backends import GpuFault

_SECONDS = 30.0
_ASK = """
import json, torch
found = []
if torch.cuda.is_available():
    hip = getattr(torch.version, "hip", None)
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        found.append({"vendor": "amd" if hip else "nvidia", "model": p.name,
                      "capability": "" if hip else f"{p.major}.{p.minor}",
                      "memory_bytes": p.total_memory, "uuid": f"GPU-{getattr(p, 'uuid', i)}",
                      "runtime": f"ROCm {hip}" if hip else f"CUDA {torch.version.cuda}"})
elif getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
    found.append({"vendor": "apple", "model": "Apple GPU", "runtime": "MPS",
                  "memory_bytes": torch.mps.recommended_max_memory()})
print(json.dumps(found))
"""


def torch_installed() -> bool:
    """Whether it could be asked; does not import it."""
    return importlib.util.find_spec("torch") is not None


async def ask_torch(
    *, python: str = sys.executable, script: str = _ASK, timeout: float = _SECONDS
) -> list[GPUInfo]:
    """The GPUs torch sees.

    Raises:
        GpuFault: torch crashed, hung for ``timeout`` seconds or printed nonsense.
    """
    child = await asyncio.create_subprocess_exec(
        *(python, "-c", script),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(child.communicate(), timeout)
        return TypeAdapter(list[GPUInfo]).validate_python(json.loads(out))
    except TimeoutError as error:
        raise GpuFault("torch did not answer when asked for GPUs; its driver may hang.") from error
    except (ValueError, ValidationError) as error:
        raise GpuFault("torch is installed but could not be asked for GPUs.") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
