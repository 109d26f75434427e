"""The environment variables a job gets: the buyer's own, and a few the seller sets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from computeswarm.core.errors import Unprocessable
from computeswarm.seller.executors.base import OUTPUTS_ENV, Launch

_STEERS_THE_LOADER = re.compile(r"(NVIDIA_|LD_|PYTHON|GLIBC_TUNABLES|BASH_ENV|ENV$)")
"""Container hooks, the dynamic loader and the interpreter obey these; they are the seller's."""
_MAX_BYTES = 131_072  # the kernel's own limit for one string


def job_environment(
    launch: Launch, *, home: str, outputs: str, path: str, own: Mapping[str, str]
) -> dict[str, str]:
    """Build the complete environment.

    Raises:
        Unprocessable: a name or value can't be an environment variable.
    """
    env = {
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": str(max(1, math.ceil(launch.limits.cpus))),
        "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
        "USER": "job",  # some libraries ask; the job's user stands in no list of users
    }
    for name, value in {**launch.env, **launch.secrets}.items():
        if not name or "=" in name or "\0" in name + value or len(value) > _MAX_BYTES:
            raise Unprocessable(f"The environment variable {name[:40]!r} can't be set; rename it.")
        if not _STEERS_THE_LOADER.match(name):
            env[name] = value
    env |= {
        "HOME": home,
        "PATH": path,
        # Lines are sold as they come; a pipe would make Python hold them back by 8 kB.
        "PYTHONUNBUFFERED": "1",
        OUTPUTS_ENV: outputs,
    }
    if launch.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in launch.gpus if gpu.uuid)
    else:
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env | dict(own)
