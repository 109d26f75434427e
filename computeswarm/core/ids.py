"""Typed ids. A job id is made by the buyer, so that a repeated request names the same job."""

from __future__ import annotations

import secrets
from typing import Annotated, NewType

from pydantic import StringConstraints

NodeId = NewType("NodeId", str)
JobId = NewType("JobId", str)

NODE_ID_PATTERN = r"nd-[0-9a-f]{12}"
JOB_ID_PATTERN = r"job-[0-9a-f]{20}"
WEB_PURCHASE = "web-"
"""How the ids begin that payments to servers of the web are kept under; they are no jobs."""
NodeIdText = Annotated[str, StringConstraints(pattern=rf"^{NODE_ID_PATTERN}$")]
JobIdText = Annotated[str, StringConstraints(pattern=rf"^{JOB_ID_PATTERN}$")]


def new_job_id() -> JobId:
    """80 random bits: not guessable, and no clash within any market."""
    return JobId(f"job-{secrets.token_hex(10)}")


def new_secret() -> str:
    """256 random bits as hex: access keys, session keys, salts."""
    return secrets.token_hex(32)
