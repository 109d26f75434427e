"""Jobs' secrets at the seller: checked before money is taken, opened as a job starts, then gone.

They are kept as they came, sealed to this seller's wallet (see ``core.sealing``), in a table of
their own; the store removes a box once its job runs or has ended. Nothing else ever holds a value.
"""

from __future__ import annotations

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import Unprocessable
from computeswarm.core.jobs import ExecuteRequest
from computeswarm.core.sealing import public_key, purpose, unseal
from computeswarm.seller.job import Job
from computeswarm.seller.store import JobStore


class Vault:
    """Opens boxes with the key that is derived from the wallet's."""

    def __init__(self, key: PrivateKey, store: JobStore) -> None:
        self._key = key
        self._store = store
        self.public_key = public_key(key)
        """For the node's record."""

    def check_shape(self, request: ExecuteRequest) -> None:
        """What can be said before the payer is known.

        Raises:
            Unprocessable: secrets are missing, or nobody asked for them.
        """
        if bool(request.sealed_secrets) != bool(request.spec.secrets):
            raise Unprocessable(
                "The job names secrets, and none came along; seal them with the node's secrets_key."
                if request.spec.secrets
                else "Secrets came along that the job doesn't name; name them in its spec."
            )
        if request.sealed_secrets and request.job_id is None:
            raise Unprocessable("A job with secrets needs a job_id of yours: they are bound to it.")

    def check(self, request: ExecuteRequest, payer: str) -> None:
        """Open a box once, before its buyer is charged.

        Raises:
            BadRequest: it was sealed for something else.
            Unprocessable: it holds other names than the spec.
        """
        if request.sealed_secrets and request.job_id is not None:
            what_for = purpose(request.job_id, request.spec.digest(), payer)
            _same(request.spec.secrets, unseal(request.sealed_secrets, self._key, what_for))

    def open(self, job: Job) -> dict[str, str]:
        """The secrets of a job that starts now; empty where it has none.

        Raises:
            BadRequest, Unprocessable: what was kept does not open any more.
        """
        if not job.spec.secrets:
            return {}
        what_for = purpose(job.job_id, job.quote.spec_hash, job.buyer)
        values = unseal(self._store.sealed_secrets(job.job_id), self._key, what_for)
        _same(job.spec.secrets, values)
        return values


def _same(names: tuple[str, ...], values: dict[str, str]) -> None:
    if set(names) != values.keys():
        raise Unprocessable(
            "The sealed secrets are others than the job names; seal those it names."
        )
