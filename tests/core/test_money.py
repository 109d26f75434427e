from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeswarm.core.errors import BadRequest
from computeswarm.core.money import MAX_ATOMS, cost_atoms, format_usdc, parse_usdc, seconds_bought


@pytest.mark.parametrize(
    ("text", "atoms"),
    [("0.38", 380_000), ("$2", 2_000_000), ("1.5 USDC", 1_500_000), ("0", 0), ("0.000001", 1)],
)
def test_reads_what_people_type(text: str, atoms: int) -> None:
    assert parse_usdc(text) == atoms


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "NaN", "inf", "0.0000001", "1e12", "1,5", "0x10", "-0", "9" * 5000]
)
def test_refuses_what_is_no_amount(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_usdc(text)


@given(st.integers(0, MAX_ATOMS))
def test_an_exact_amount_reads_back(atoms: int) -> None:
    assert parse_usdc(format_usdc(atoms)) == atoms


def test_rounds_only_on_the_screen() -> None:
    assert format_usdc(1_234_567) == "1.234567"
    assert format_usdc(1_200_000) == "1.20"
    assert format_usdc(1_235_000, places=2) == "1.24"
    assert format_usdc(5, places=2) == "0.00"
    assert format_usdc(3_410_000, places=2, sign=True) == "+3.41"
    assert format_usdc(-620_000, places=2, sign=True) == "-0.62"


def test_the_seed_documents_price_is_4200_atoms() -> None:
    assert parse_usdc("0.0042") == 4200


@given(st.integers(0, 10**9), st.floats(0, 10**6))
def test_cost_never_undercharges_nor_by_a_whole_atom_over(price: int, seconds: float) -> None:
    exact = price * round(seconds * 1e6) / 3_600_000_000
    cost = cost_atoms(price, seconds)
    assert exact - 1e-3 <= cost < exact + 1 + 1e-3


@given(st.integers(1, 10**9), st.integers(1, 86400))
def test_bought_seconds_cover_what_was_paid_for(price: int, seconds: int) -> None:
    assert seconds_bought(price, cost_atoms(price, seconds)) >= seconds


def test_a_free_node_sells_endless_time() -> None:
    assert seconds_bought(0, 0) == float("inf")
    assert cost_atoms(0, 1e6) == 0
    assert cost_atoms(10, -5) == 0
