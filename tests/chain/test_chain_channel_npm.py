"""The published facilitator for JavaScript, unmodified, on our contract."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest
from channel_rig import CHAIN, DELAY, ChannelRig

from computeswarm.chain.batch_settlement import ChannelState, deposit_proof, refund_proof
from computeswarm.core.channels import (
    ChannelConfig,
    channel_id,
    claim_batch_digest,
    deposit_digest,
    refund_digest,
)

_FOLDER = Path(__file__).resolve().parents[1] / "e2e/x402_npm"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (_FOLDER / "node_modules").is_dir(), reason="npm packages are missing; run make dev"
    ),
]
PRICE, DEPOSIT = 1000, 5000


def _requirements(rig: ChannelRig) -> dict[str, Any]:
    extra = {
        "receiverAuthorizer": rig.receiver.address,
        "withdrawDelay": DELAY,
        "name": CHAIN.usdc.name,
        "version": CHAIN.usdc.version,
    }
    return {
        "scheme": "batch-settlement",
        "network": CHAIN.caip2,
        "amount": str(PRICE),
        "asset": CHAIN.usdc.address,
        "payTo": rig.receiver.address,
        "maxTimeoutSeconds": 600,
        "extra": extra,
    }


class Papers:
    """What payer and receiver sign for one channel, in the words of the standard."""

    def __init__(self, rig: ChannelRig, config: ChannelConfig) -> None:
        self.rig, self.config = rig, config
        self.name = channel_id(config, CHAIN)

    def voucher(self, ceiling: int) -> dict[str, str]:
        signature = self.rig.row(self.config, ceiling).signature
        return {
            "channelId": self.name,
            "maxClaimableAmount": str(ceiling),
            "signature": "0x" + signature.hex(),
        }

    def paying(self, kind: str, ceiling: int, **more: Any) -> dict[str, Any]:
        wire = {"channelConfig": self.config.wire(), "voucher": self.voucher(ceiling)}
        return {"type": kind, **wire, **more}

    def deposit(self, now: int) -> dict[str, Any]:
        window = {"valid_after": now - 60, "valid_before": now + 600}
        salt = secrets.randbits(256)
        digest = deposit_digest(self.config, CHAIN, amount=DEPOSIT, salt=salt, **window)
        authorization = {
            "validAfter": str(now - 60),
            "validBefore": str(now + 600),
            "salt": f"0x{salt:064x}",
            "signature": "0x" + self.rig.payer.sign_digest(digest).hex(),
        }
        given = {
            "amount": str(DEPOSIT),
            "authorization": {"erc3009Authorization": authorization},
        }
        return self.paying("deposit", PRICE, deposit=given)

    def claim(self, total: int) -> dict[str, Any]:
        digest = claim_batch_digest([(self.name, total, total)], CHAIN)
        row = {
            "voucher": {"channel": self.config.wire(), "maxClaimableAmount": str(total)},
            "signature": self.voucher(total)["signature"],
            "totalClaimed": str(total),
        }
        signature = "0x" + self.rig.receiver.sign_digest(digest).hex()
        return {"type": "claim", "claims": [row], "claimAuthorizerSignature": signature}

    def refund(self, total: int) -> dict[str, Any]:
        amount = DEPOSIT - total
        digest = refund_digest(self.name, 0, amount, CHAIN)
        claim = self.claim(total)
        return self.paying(
            "refund",
            total,
            amount=str(amount),
            refundNonce="0",
            claims=claim["claims"],
            claimAuthorizerSignature=claim["claimAuthorizerSignature"],
            refundAuthorizerSignature="0x" + self.rig.receiver.sign_digest(digest).hex(),
        )


async def test_a_channels_whole_life_by_the_published_facilitator(rig: ChannelRig) -> None:
    papers = Papers(rig, rig.config())
    now = (await rig.rpc.head()).timestamp
    settle = {"type": "settle", "receiver": rig.receiver.address, "token": CHAIN.usdc.address}
    steps = [
        (papers.deposit(now), True),
        (papers.paying("voucher", 2 * PRICE), True),
        (papers.claim(PRICE), False),
        (settle, False),
        (papers.refund(2 * PRICE), False),
        (settle, False),
    ]
    told = await _facilitate(rig, _requirements(rig), steps)
    assert [answer["verdict"] and answer["verdict"]["isValid"] for answer in told[:2]] == [True] * 2
    assert told[1]["verdict"]["payer"] == rig.payer.address
    settled = [answer["settled"] for answer in told if answer["settled"]]
    assert all(answer["success"] for answer in settled), settled
    deposited, claimed, first, refunded, second = settled
    receipts = [await rig.rpc.receipt(answer["transaction"]) for answer in settled]
    assert deposit_proof(receipts[0], papers.name, DEPOSIT)
    assert deposited["amount"] == str(DEPOSIT)
    assert not claimed.get("amount")
    assert (first["amount"], second["amount"]) == (str(PRICE), str(PRICE))
    assert refund_proof(receipts[3], papers.name) == DEPOSIT - 2 * PRICE
    assert refunded["extra"]["channelState"]["refundNonce"] == "1"
    assert await rig.contract.state(papers.name) == ChannelState(2 * PRICE, 2 * PRICE, 0, 0, 1)
    assert await rig.usdc.balance_of(rig.receiver.address) == 2 * PRICE


async def _facilitate(
    rig: ChannelRig, requirements: dict[str, Any], steps: list[tuple[dict[str, Any], bool]]
) -> list[dict[str, Any]]:
    request = {
        "requirements": requirements,
        "payloads": [{"payload": payload, "verify": verify} for payload, verify in steps],
    }
    process = await asyncio.create_subprocess_exec(
        *("node", str(_FOLDER / "facilitate.mjs"), rig.devnet.url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "X402_KEY": "0x" + rig.relayer.secret.hex()},
    )
    out, complaints = await asyncio.wait_for(process.communicate(json.dumps(request).encode()), 100)
    assert process.returncode == 0, complaints.decode()
    told: list[dict[str, Any]] = json.loads(out)
    return told
