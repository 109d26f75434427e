"""Secrets sealed for one seller, job, spec and buyer."""

from __future__ import annotations

import base64

import pytest

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest
from computeswarm.core.jobs import ExecuteRequest, JobSpec
from computeswarm.core.sealing import (
    MAX_SEALED_CHARS,
    MAX_SECRET_BYTES,
    opening_key,
    public_key,
    purpose,
    seal,
    unseal,
)

SELLER = PrivateKey(b"\x01" * 32)
FOR = purpose("job-1", "0xab", "0xBuyer")


def test_only_the_seller_opens_a_box_and_only_for_its_purpose() -> None:
    values = {"TOKEN": "hunter2", "KEY": "zwei\nZeilen\t\U0001f511"}
    box = seal(values, public_key(SELLER), FOR)
    assert unseal(box, SELLER, FOR) == values
    assert b"hunter2" not in base64.b64decode(box) and "hunter2" not in box
    others = [
        (PrivateKey(b"\x02" * 32), FOR),
        (SELLER, purpose("job-2", "0xab", "0xBuyer")),
        (SELLER, purpose("job-1", "0xac", "0xBuyer")),
        (SELLER, purpose("job-1", "0xab", "0xother")),
    ]
    for key, what_for in others:
        with pytest.raises(BadRequest, match="sealed for this node"):
            unseal(box, key, what_for)
    # the spelling of an address makes no difference, and two boxes of the same are not the same
    assert unseal(box, SELLER, purpose("job-1", "0xab", "0xBUYER")) == values
    assert seal(values, public_key(SELLER), FOR) != box
    assert opening_key(SELLER).secret != SELLER.secret


def test_any_changed_byte_is_refused() -> None:
    raw = bytearray(base64.b64decode(seal({"A": "b"}, public_key(SELLER), FOR)))
    for at in range(len(raw)):
        raw[at] ^= 1
        with pytest.raises(BadRequest):
            unseal(base64.b64encode(raw).decode(), SELLER, FOR)
        raw[at] ^= 1
    for box in ("", "!", "AQ==", base64.b64encode(b"\1" * 60).decode(), "é"):
        with pytest.raises(BadRequest):
            unseal(box, SELLER, FOR)


def test_the_length_tells_little() -> None:
    sizes = {len(seal({"A": "x" * n}, public_key(SELLER), FOR)) for n in range(1, 200, 9)}
    assert len(sizes) == 1


@pytest.mark.parametrize("value", ["", "a\0b", "x" * (MAX_SECRET_BYTES + 1), "\ud800swordfish"])
def test_a_value_that_can_not_be_a_variable_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        seal({"TOKEN": value}, public_key(SELLER), FOR)
    assert "TOKEN" in caught.value.detail and "swordfish" not in str(caught.value)


def test_the_largest_box_fits_its_request() -> None:
    values = {"A": "x" * MAX_SECRET_BYTES, "B": "\U0001f511" * 7_000}
    box = seal(values, public_key(SELLER), FOR)
    assert unseal(box, SELLER, FOR) == values and len(box) < MAX_SEALED_CHARS
    request = ExecuteRequest(spec=JobSpec(command=("x",), secrets=("A", "B")), sealed_secrets=box)
    assert box[:40] not in repr(request)
    with pytest.raises(BadRequest, match="64 KiB together"):
        seal({"A": "x" * MAX_SECRET_BYTES, "B": "y" * MAX_SECRET_BYTES}, public_key(SELLER), FOR)


def test_no_box_is_made_for_a_node_without_a_key() -> None:
    for recipient in ("", "02" + "00" * 32, "zz"):
        with pytest.raises(BadRequest, match="another node"):
            seal({"A": "b"}, recipient, FOR)


def test_names_are_part_of_the_job_and_values_are_not() -> None:
    plain = JobSpec(command=("x",))
    named = plain.model_copy(update={"secrets": ("TOKEN",)})
    assert named.digest() != plain.digest()
    for wrong in ({"secrets": ("A", "A")}, {"secrets": ("A",), "env": {"A": "1"}}):
        with pytest.raises(ValueError, match="same name"):
            JobSpec.model_validate({"command": ["x"], **wrong})
    with pytest.raises(ValueError, match="letters"):
        JobSpec.model_validate({"command": ["x"], "secrets": ["A=B"]})
