"""``computeswarm seller revoke [NODE]``: take a node off the market, whether or not it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.core.crypto import PrivateKey


def act(context: Context, unlock: Callable[[], PrivateKey]) -> int:
    """Ask, unlock the wallet, revoke.

    Raises:
        UsageError: nobody can be asked, and --yes was not given.
        ComputeSwarmError: the wallet can't be opened, or the market refuses.
    """
    from computeswarm.core.clock import SystemClock
    from computeswarm.core.text import clean_line
    from computeswarm.payments.wallet import wallet_address
    from computeswarm.seller.configure import node_name
    from computeswarm.seller.revoking import find_node, revoke_node

    settings = context.settings
    called = context.args.value or node_name(settings)
    node = find_node(wallet_address(context.paths.wallet), called)
    if not context.args.yes:
        if not context.interactive or context.json:
            raise UsageError("`seller revoke` asks before it signs; give --yes where nobody sits.")
        context.note(
            f"{clean_line(called, limit=60)} ({node}) goes off the market {settings.market} at"
            " once; its jobs go on. A seller that runs stays off; starting it again lists it anew."
        )
        if not context.agrees("Revoke it?"):
            return ExitCode.REFUSED
    signed = asyncio.run(
        revoke_node(unlock(), node, settings.market, settings.chain, SystemClock(), called=called)
    )
    if context.json:
        context.document({"revoked": node, "revocation": signed.model_dump(mode="json")})
    context.text(f"{node} is revoked; starting its seller again lists it anew.")
    return ExitCode.OK
