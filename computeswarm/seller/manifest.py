"""``/x402.json``: what is sold here and how it is paid, in the form of x402's discovery lists."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from computeswarm.core.jobs import ExecuteRequest
from computeswarm.core.money import cost_atoms
from computeswarm.core.nodes import RECORD_KIND, NodeRecord
from computeswarm.payments.extensions.bazaar import BAZAAR, described, discovered, page_of
from computeswarm.payments.terms import Terms
from computeswarm.seller.intake import EXECUTE_EXAMPLE, REPLY_EXAMPLE, TIMEOUT_SECONDS

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent


def manifest(agent: SellerAgent) -> dict[str, Any]:
    """What an x402 client has to know before it asks; the 402 itself has the exact terms.

    The prices are those of a first slice, or tick, of a job with one GPU (or the whole machine).
    """
    record = agent.offers.record().open(RECORD_KIND, NodeRecord)
    config, till = agent.config, agent.intake.till
    url = record.endpoint.rstrip("/") + "/execute"

    def terms(seconds: int) -> Terms:
        amount = cost_atoms(record.price_per_hour, seconds)
        return Terms(config.chain, agent.wallet, amount, url, max_timeout_seconds=TIMEOUT_SECONDS)

    ways = [terms(record.slice_seconds).requirements_v2()]
    if till.open:
        ways.append(till.requirements(terms(config.tick_seconds)))
    item = discovered(
        url,
        accepts=[way.wire() for way in ways],
        last_updated=record.issued_at,
        metadata={
            "node_id": agent.node_id,
            "hardware": record.hardware.title,
            "price_per_hour": record.price_per_hour,
            "slice_seconds": record.slice_seconds,
            "description": "Runs a command on this machine; pays for its first slice.",
        },
        extensions={BAZAAR: _full()},
    )
    return page_of([item], limit=1, offset=0, total=1) | {
        "versions": [1, 2],
        "name": record.name,
        "node_id": agent.node_id,
        "payTo": agent.wallet,
        "openapi": "/openapi.json",
    }


@cache
def _full() -> dict[str, Any]:
    schema = ExecuteRequest.model_json_schema()
    definitions = schema.pop("$defs", {})
    made = described(EXECUTE_EXAMPLE, REPLY_EXAMPLE, schema=schema)
    made["schema"]["$defs"] = definitions  # where its references look for them
    return made
