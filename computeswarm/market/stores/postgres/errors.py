"""What PostgreSQL's errors mean for whoever asked."""

from __future__ import annotations

import asyncpg

from computeswarm.core.errors import ComputeSwarmError, StorageFull, Unavailable

RETRY_SECONDS = 2

LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.InternalClientError,
)
"""The connection is no more. Unless it was lost in a commit, nothing was written."""

AWAY = (
    *LOST,
    TimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""The server can't serve us now, and may again later."""

ANSWERS = (
    asyncpg.DiskFullError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)
"""Signs of life, though what was asked did not happen."""

AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Two writers were in each other's way; nothing was written."""

WRONG = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""What only the operator can put right, where it is met at the start."""


class Unsure(Exception):
    """The connection was lost in a commit: it may have happened."""


def unavailable(why: str) -> Unavailable:
    """A refusal for now."""
    return Unavailable(f"The market's database does not answer: {why}.", retry_after=RETRY_SECONDS)


def meaning(error: BaseException) -> ComputeSwarmError | None:
    """What a user can do about it; None where it is neither the server's state nor the line's."""
    if isinstance(error, asyncpg.DiskFullError):
        return StorageFull("The market's database is full; its operator must make room.")
    if isinstance(error, Unsure):
        return unavailable("it went away while it wrote")
    if isinstance(error, TimeoutError):
        return unavailable("it takes too long")
    if isinstance(error, asyncpg.PostgresError) and isinstance(error, AWAY):
        return unavailable(str(error).rstrip("."))
    if isinstance(error, AWAY):
        return unavailable("the connection is lost")
    return None
