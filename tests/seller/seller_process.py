"""A seller as a process of its own, for the tests that end it. Its one argument is JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.settings import Paths, Settings
from computeswarm.server.seller_build import RunningSeller, open_seller
from computeswarm.server.serving import run, run_until_signal


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    opening = open_seller(
        Settings(**given["settings"]),
        Paths.find({"COMPUTESWARM_HOME": given["home"]}),
        PrivateKey.from_hex(given["key"]),
        trusted=given["trusted"],
        default_port=0,
    )

    def ready(seller: RunningSeller) -> None:
        print(json.dumps({"url": seller.url, "wallet": seller.agent.wallet}), flush=True)

    run(run_until_signal(opening, ready=ready))


if __name__ == "__main__":
    main()
