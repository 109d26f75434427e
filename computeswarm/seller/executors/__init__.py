"""Running other people's code: one protocol, several walls."""

from computeswarm.seller.executors.base import (
    OUTPUTS_DIR,
    OUTPUTS_ENV,
    Executor,
    Exit,
    Launch,
    Limits,
    Problem,
    Running,
    Stream,
    Usage,
    Workspace,
)

__all__ = [
    "OUTPUTS_DIR",
    "OUTPUTS_ENV",
    "Executor",
    "Exit",
    "Launch",
    "Limits",
    "Problem",
    "Running",
    "Stream",
    "Usage",
    "Workspace",
]
