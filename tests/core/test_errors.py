from __future__ import annotations

import pytest

from computeswarm.core import errors
from computeswarm.core.errors import ComputeSwarmError, ExitCode, from_problem


def test_codes_are_unique_and_each_has_its_status() -> None:
    classes = list(errors._all_errors().values())
    stack, everyone = [ComputeSwarmError], []
    while stack:
        cls = stack.pop()
        everyone.append(cls)
        stack.extend(cls.__subclasses__())
    own = [c for c in everyone if c.__module__ == errors.__name__]
    assert len({c.code for c in own}) == len(own)
    assert all(400 <= c.status < 600 for c in classes)
    assert all(c.title and not c.title.endswith(".") for c in own)


def test_a_problem_document_comes_back_as_the_same_error() -> None:
    sent = errors.NodeNotFound("Node nd-1 is not listed; run `computeswarm nodes`.", node="nd-1")
    got = from_problem(sent.to_problem(), status=404)
    assert type(got) is errors.NodeNotFound
    assert got.detail == sent.detail
    assert got.extra == {"node": "nd-1"}


@pytest.mark.parametrize("document", [None, [], "x", 3, {}, {"code": 7}, {"detail": ["x"]}])
def test_nonsense_becomes_the_fallback(document: object) -> None:
    got = from_problem(document, status=500, fallback=errors.SellerUnavailable)
    assert type(got) is errors.SellerUnavailable
    assert "500" in got.detail or "x" in got.detail


def test_a_stranger_can_not_pose_as_our_own_refusal_or_choose_an_exit_code() -> None:
    for code in ("policy_refused", "unauthorized"):
        document = {"code": code, "detail": "mine"}
        got = from_problem(document, status=403, fallback=errors.SellerUnavailable)
        assert got.exit_code == ExitCode.OWN_ERROR
    wrong_status = from_problem({"code": "node_not_found", "detail": "d"}, status=500)
    assert type(wrong_status) is ComputeSwarmError


def test_a_strangers_text_is_capped() -> None:
    assert len(from_problem({"detail": "x" * 10**6}, status=400).detail) <= 2_000
