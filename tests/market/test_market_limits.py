"""Rate limits: windows that slide, whose they are, and counting together with other instances."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_fixtures import FakeClock
from node_records import START

from computeswarm.core.addresses import address_key
from computeswarm.core.errors import ConfigError, TooManyRequests, Unavailable
from computeswarm.market.limits import (
    DEFAULTS,
    MAX_KEYS,
    SHARED_FROM,
    Kind,
    Limit,
    Limits,
    read_limits,
    wallet_key,
)
from computeswarm.market.stores import open_store


def taken(limits: Limits, key: str, most: int) -> int:
    """How many fit."""
    for count in range(most):
        try:
            limits.take(Kind.READ, key)
        except TooManyRequests:
            return count
    return most


def test_what_fits_and_what_the_refusal_says() -> None:
    clock = FakeClock()
    limits = Limits(clock, {Kind.READ: Limit(10, 10)})
    assert taken(limits, "203.0.113.9", 99) == 10
    assert taken(limits, "203.0.113.10", 99) == 10
    with pytest.raises(TooManyRequests) as refused:
        limits.take(Kind.READ, "203.0.113.9")
    assert refused.value.extra["limit"] == "read per address"
    assert (refused.value.extra["amount"], refused.value.extra["seconds"]) == (10, 10)
    assert limits.refused == {"read per address": 3}
    limits.take(Kind.SUBMIT, "203.0.113.9")  # another kind, here without a limit


@given(
    asks=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    amount=st.integers(1, 12),
    start=st.floats(0, 20),
)
def test_no_ten_seconds_see_more_than_twice_the_limit_and_waiting_always_helps(
    asks: list[float], amount: int, start: float
) -> None:
    clock = FakeClock(START + start)
    limits = Limits(clock, {Kind.READ: Limit(amount, 10)})
    passed: list[float] = []
    for pause in asks:
        clock.time += pause
        try:
            limits.take(Kind.READ, "k")
        except TooManyRequests as refused:
            assert limits.spent(Kind.READ, "k")
            clock.time += refused.extra["retry_after"]
            limits.take(Kind.READ, "k")  # as promised
        passed.append(clock.time)
    for moment in passed:
        # the estimate spreads the window before evenly; it can't be more than one limit wrong
        assert sum(moment - 10 < other <= moment for other in passed) <= 2 * amount


def test_a_flood_of_addresses_costs_bounded_memory_and_is_limited_still() -> None:
    clock = FakeClock()
    limits = Limits(clock, {Kind.READ: Limit(2, 10)})
    refused = 0
    for number in range(MAX_KEYS + 30_000):
        try:
            limits.take(Kind.READ, f"flood-{number}")
        except TooManyRequests:
            refused += 1
    windows = limits._kinds[Kind.READ]
    assert len(windows.now) <= MAX_KEYS + 1_024
    assert refused > 15_000
    clock.time += 21
    assert taken(limits, "flood-1", 9) == 2
    assert len(windows.now) == 1
    assert windows.before == {}


def test_who_is_counted_together() -> None:
    assert address_key("2001:db8:1:2::5") == address_key("2001:db8:1:2:ffff::9")
    assert address_key("2001:db8:1:2::5") != address_key("2001:db8:1:3::5")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1") == "192.0.2.1"
    assert address_key("fe80::1%eth0") == address_key("fe80::2%eth1")
    assert len(address_key("x" * 5_000)) == 64
    assert wallet_key("0xABC") == wallet_key("0xabc")


def test_the_setting() -> None:
    limits = read_limits(" read=50/5s, auth=off , SUBMIT=7/1h")
    assert limits[Kind.READ] == Limit(50, 5)
    assert limits[Kind.SUBMIT] == Limit(7, 3_600)
    assert Kind.AUTH not in limits
    assert limits[Kind.REGISTER] == DEFAULTS[Kind.REGISTER]
    assert read_limits("") == DEFAULTS


@pytest.mark.parametrize(
    "text", ["reads=5/1s", "read=5", "read=0/1s", "read=5/2d", "read=5/x", "9"]
)
def test_a_setting_that_cant_be_read_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"can't be read; write KIND=AMOUNT/TIME"):
        read_limits(f"submit=5/1m, {text}")


@pytest.fixture
async def instances(postgres_url: str) -> AsyncIterator[list[Limits]]:
    """Three that write one database."""
    async with AsyncExitStack() as stack:
        made = []
        clock = FakeClock()
        for _ in range(3):
            store = open_store(postgres_url)
            await store.open()
            stack.push_async_callback(store.close)
            made.append(Limits(clock, {Kind.READ: Limit(240, 600)}, store=store))
        yield made


async def test_instances_count_one_client_together(instances: list[Limits]) -> None:
    passed = 0
    for _ in range(80):
        for limits in instances:
            passed += taken(limits, "203.0.113.9", 3)
            await limits.share()
    # each lets an eighth pass before it asks, and three requests between two looks
    assert 240 <= passed <= 240 + 3 * (240 // SHARED_FROM + 3)
    assert taken(instances[0], "203.0.113.10", 999) == 240, "another client is not touched"


async def test_what_could_not_be_shared_is_shared_later(instances: list[Limits]) -> None:
    first, second, _ = instances
    taken(first, "203.0.113.9", 100)
    real, answers = first._store, iter([False, True])

    class Flaky:
        async def share(self, counts: dict[str, object]) -> object:
            if not next(answers):
                raise Unavailable("The database does not answer.")
            assert real is not None
            return await real.share(counts)  # type: ignore[arg-type]

    first._store = Flaky()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await first.share()
    await first.share()
    taken(second, "203.0.113.9", 240 // SHARED_FROM)
    await second.share()
    assert taken(second, "203.0.113.9", 999) == 240 - 100 - 240 // SHARED_FROM
