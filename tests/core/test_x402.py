"""Our wire models read by the published package, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from x402.schemas import PaymentRequired as TheirRequiredV2

from computeswarm.core.chains import BASE_SEPOLIA, chain_by_id
from computeswarm.core.errors import BadRequest, ConfigError
from computeswarm.core.signing import describe_validation
from computeswarm.core.x402 import (
    PaymentRequiredV2,
    PaymentV2,
    RequirementsV1,
    RequirementsV2,
    ResourceInfo,
    decode_header,
    encode_header,
)

USDC = BASE_SEPOLIA.usdc.address


def required() -> PaymentRequiredV2:
    return PaymentRequiredV2(
        resource=ResourceInfo(url="http://seller/execute"),
        accepts=(
            RequirementsV2(
                scheme="exact",
                network=BASE_SEPOLIA.caip2,
                amount="4200",
                asset=USDC,
                pay_to=USDC,
                max_timeout_seconds=60,
                extra={"name": "USDC", "version": "2"},
            ),
        ),
    )


def test_the_published_package_reads_our_challenge() -> None:
    theirs = TheirRequiredV2.model_validate(required().wire())
    assert theirs.accepts[0].pay_to == USDC
    assert PaymentRequiredV2.model_validate(theirs.model_dump(by_alias=True)) == required()


def test_no_member_is_null_on_the_wire() -> None:
    v1 = RequirementsV1(
        scheme="exact", network="base-sepolia", max_amount_required="1", resource="http://x",
        pay_to=USDC, max_timeout_seconds=60, asset=USDC,
    )  # fmt: skip
    assert None not in v1.wire().values()
    assert "outputSchema" not in v1.wire()
    assert v1.wire()["maxAmountRequired"] == "1"


@pytest.mark.parametrize(
    "text", ["", "%%%", "bm90IGpzb24=", "W10=", "A" * 20_000, "eyJhIjo=", "W1tb" * 4_000]
)
def test_a_header_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        decode_header(text)


@given(st.dictionaries(st.text(max_size=5), st.integers()))
def test_headers_come_back(value: dict[str, int]) -> None:
    assert decode_header(encode_header(value)) == value


@pytest.mark.parametrize("amount", ["-1", "1.5", "01", "", "1e3", "9" * 79, 5])
def test_amounts_are_plain_decimal_strings(amount: object) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        RequirementsV2.model_validate(required().accepts[0].wire() | {"amount": amount})
    assert describe_validation(caught.value).startswith("amount")


def test_a_payment_keeps_what_was_accepted() -> None:
    payment = PaymentV2.model_validate(
        {
            "x402Version": 2,
            "accepted": required().accepts[0].wire(),
            "payload": {
                "signature": "0x" + "11" * 65,
                "authorization": {
                    "from": USDC, "to": USDC, "value": "4200", "validAfter": "0",
                    "validBefore": "9", "nonce": "0x" + "22" * 32,
                },
            },
        }
    )  # fmt: skip
    assert payment.accepted == required().accepts[0]
    assert payment.payload.wire()["authorization"]["from"] == USDC


def test_only_known_chains_exist() -> None:
    assert chain_by_id(84532) is BASE_SEPOLIA
    with pytest.raises(ConfigError):
        chain_by_id(1)
