"""How every screen and dialog looks. Plain functions: the plugin runs its own event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from tui_drive import make_app, settled, until
from tui_fake import FLEET, JOBS, NOW, FakeBuyer, job, node
from tui_fake_seller import GPUS, FakeSeller, seller_status

from computeswarm.core.chains import BASE
from computeswarm.core.errors import (
    InsufficientFunds,
    MarketUnavailable,
    SellerUnavailable,
)
from computeswarm.core.settings import real_money_refused
from computeswarm.core.text import clean_line
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.views import LogLine
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.header import Header

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
DOWN = MarketUnavailable("The market at http://market.example:8402 does not answer; is it running?")
EVIL = "[red]x[/] [@click=app.exit()]me[/] [/nope] \u202eevil \x1b]0;owned\x07 日本語 \x9b31m"
EVIL_NODE = node(0, name=clean_line(EVIL), title=clean_line(EVIL), region=clean_line(EVIL))
EVIL_JOB = job(0, name=clean_line(EVIL), node_name=clean_line(EVIL))
EVIL_LOG = [LogLine(clean_line(EVIL), kind, int(NOW * 1000)) for kind in ("stdout", "stderr")]

Snap = Callable[..., bool]


def _buyer(kind: str) -> FakeBuyer:
    match kind:
        case "empty":
            return FakeBuyer(nodes=(), jobs=[])
        case "disconnected":
            return FakeBuyer(jobs=[], fault=DOWN)
        case "hostile":
            return FakeBuyer(nodes=(EVIL_NODE, *FLEET[:3]), jobs=[EVIL_JOB], log=EVIL_LOG)
        case _:
            return FakeBuyer()


def _seller(kind: str) -> FakeSeller | None:
    if kind == "empty":
        return None
    fake = FakeSeller()
    if kind == "disconnected":
        fake.fault = SellerUnavailable("The seller at http://127.0.0.1:8403 does not answer.")
    if kind == "hostile":
        state = seller_status()
        fake.state = replace(
            state,
            name=clean_line(EVIL),
            jobs=tuple(
                replace(j, name=clean_line(EVIL), image=clean_line(EVIL)) for j in state.jobs
            ),
            events=tuple(replace(e, text=clean_line(EVIL)) for e in state.events),
        )
    if kind == "cpu":
        fake.state = seller_status(gpus=(), jobs=(), events=())
    return fake


def _shot(
    snap: Snap,
    app: ComputeSwarmApp,
    size: str,
    then: Callable[[Pilot[None]], Awaitable[None]] | None = None,
) -> bool:
    async def run_before(pilot: Pilot[None]) -> None:
        await settled(pilot)
        if then is not None:
            await then(pilot)
            await pilot.pause()

    return snap(app, terminal_size=SIZES[size], run_before=run_before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["loaded", "empty", "disconnected", "hostile"])
def test_buyer(snap_compare: Snap, kind: str, size: str) -> None:
    assert _shot(snap_compare, make_app(_buyer(kind)), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["loaded", "empty", "disconnected", "hostile", "cpu"])
def test_seller(snap_compare: Snap, kind: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # one reading: on a slow machine there would be two, and a chart has one more bar
    monkeypatch.setattr("computeswarm.tui.screens.seller.STATUS_EVERY", 3_600.0)
    app = make_app(FakeBuyer(), _seller(kind), mode="seller")
    assert _shot(snap_compare, app, size)


def test_larger_screen(snap_compare: Snap) -> None:
    async def run_before(pilot: Pilot[None]) -> None:
        await settled(pilot)

    assert snap_compare(make_app(FakeBuyer()), terminal_size=(200, 60), run_before=run_before)


def test_without_colours(snap_compare: Snap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert _shot(snap_compare, make_app(FakeBuyer()), "80x24")


def test_wrong_word_in_the_filter(snap_compare: Snap) -> None:
    async def then(pilot: Pilot[None]) -> None:
        await pilot.press("slash")
        # in one go: a slow machine would ask for the first word alone, which narrows the list
        pilot.app.screen.query_one(FilterBar).fill("gpu:4090 vrom>=24")
        await until(pilot, lambda: pilot.app.screen.query("FilterBar.-wrong"))

    assert _shot(snap_compare, make_app(FakeBuyer()), "80x24", then)


def _keys(*keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def then(pilot: Pilot[None]) -> None:
        for key in keys:
            await pilot.press(key)
            await pilot.pause()

    return then


DIALOGS: dict[str, tuple[str, ...]] = {
    "help": ("question_mark",),
    "facets": ("c",),
    "node": ("i",),
    "wizard_resources": ("enter", "enter"),
    "cancel": ("x",),
    "quit": ("q",),
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script in the current folder, so that its path looks the same everywhere."""
    from computeswarm.tui.draft import ExampleJob

    monkeypatch.chdir(tmp_path)
    Path("monte_carlo.py").write_text("import random\n\nprint(4)\n")
    return ExampleJob(Path("monte_carlo.py"))


@pytest.mark.parametrize("name", DIALOGS)
def test_dialog(snap_compare: Snap, name: str, script: Any) -> None:
    app = make_app(FakeBuyer(), example=script)
    assert _shot(snap_compare, app, "80x24", _keys(*DIALOGS[name]))


@pytest.mark.parametrize("step", range(5))
def test_wizard(snap_compare: Snap, step: int, script: Any) -> None:
    app = make_app(FakeBuyer(), example=script)
    assert _shot(snap_compare, app, "80x24", _keys("n", *["escape"] * (4 - step)))


@pytest.mark.parametrize("kind", ["offered", "channel", "refused", "failed", "poor"])
def test_payment(snap_compare: Snap, kind: str, script: Any) -> None:
    buyer = FakeBuyer()
    if kind == "refused":
        buyer.offer_fault = SellerUnavailable("The seller of nd-9e3779 does not answer.")
    if kind == "failed":
        buyer.buy_fault = InsufficientFunds("The wallet holds less than this slice costs.")
    if kind == "poor":
        buyer.usdc = 12
    if kind == "channel":
        buyer.identity = replace(buyer.identity, pay="channel")

    async def then(pilot: Pilot[None]) -> None:
        await pilot.press("n", "enter")
        screen = pilot.app.screen
        await until(
            pilot,
            lambda: (
                screen.query("#pay-text")
                and "signed quote" not in str(screen.query_one("#pay-text").visual)
            ),
        )
        if kind == "failed":
            await pilot.press("p")
            await until(pilot, lambda: screen._over)  # type: ignore[attr-defined]

    assert _shot(snap_compare, make_app(buyer, example=script), "80x24", then)


def test_receipt(snap_compare: Snap) -> None:
    async def then(pilot: Pilot[None]) -> None:
        pilot.app.screen.query_one("#jobs").select(JOBS[2].job_id)  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("r")

    assert _shot(snap_compare, make_app(FakeBuyer()), "80x24", then)


def test_receipt_of_a_job_that_a_channel_paid(snap_compare: Snap) -> None:
    app = make_app(FakeBuyer(jobs=[job(4)]))
    assert _shot(snap_compare, app, "80x24", _keys("j", "r"))


def test_download(snap_compare: Snap) -> None:
    async def then(pilot: Pilot[None]) -> None:
        pilot.app.screen.query_one("#jobs").select(JOBS[2].job_id)  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("d")
        await pilot.pause()
        await pilot.press("enter")
        text = pilot.app.screen.query_one("#download-text")
        await until(pilot, lambda: "digests checked" in str(text.visual))

    assert _shot(snap_compare, make_app(FakeBuyer()), "80x24", then)


def test_download_over_other_files_asks_first(snap_compare: Snap) -> None:
    buyer = FakeBuyer()
    buyer.others = ["model.npz"]

    async def then(pilot: Pilot[None]) -> None:
        pilot.app.screen.query_one("#jobs").select(JOBS[2].job_id)  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("d")
        await pilot.pause()
        await pilot.press("enter")
        text = pilot.app.screen.query_one("#download-text")
        await until(pilot, lambda: "again overwrites" in str(text.visual))
        await pilot.press("enter")
        await until(pilot, lambda: "digests checked" in str(text.visual))

    assert _shot(snap_compare, make_app(buyer), "80x24", then)


def test_price(snap_compare: Snap) -> None:
    app = make_app(FakeBuyer(), FakeSeller(), mode="seller")
    assert _shot(snap_compare, app, "80x24", _keys("p"))


@pytest.mark.parametrize("size", SIZES)
def test_real_money_without_a_seller(snap_compare: Snap, size: str) -> None:
    assert _shot(snap_compare, make_app(FakeBuyer(real_money=True), mode="seller"), size)


@pytest.mark.parametrize("size", SIZES)
def test_a_seller_that_died(snap_compare: Snap, size: str) -> None:
    seller = FakeSeller()

    async def then(pilot: Pilot[None]) -> None:
        seller.fault = SellerUnavailable("The seller at http://127.0.0.1:8403 does not answer.")
        await until(pilot, lambda: pilot.app.screen.query_one(Header).link.state == "offline")

    assert _shot(snap_compare, make_app(FakeBuyer(), seller, mode="seller"), size, then)


def test_evict(snap_compare: Snap) -> None:
    app = make_app(FakeBuyer(), FakeSeller(), mode="seller")
    assert _shot(snap_compare, app, "80x24", _keys("x"))


def test_slices_and_a_paused_job(snap_compare: Snap) -> None:
    state = seller_status()
    parts = tuple(
        replace(gpu, model="A100 80GB", is_slice=True, power_w=None, trouble="") for gpu in GPUS
    )
    jobs = (replace(state.jobs[0], paused=True), *state.jobs[1:])
    unmeasured = replace(state.earnings, nets=(None, None, None), owed=0)
    seller = FakeSeller(
        replace(state, gpus=parts, jobs=jobs, earnings=unmeasured, mood="draining", paused=True)
    )
    assert _shot(snap_compare, make_app(FakeBuyer(), seller, mode="seller"), "80x24")


def test_find_in_the_log(snap_compare: Snap) -> None:
    async def then(pilot: Pilot[None]) -> None:
        await pilot.press("l", "slash", *"accuracy", "enter", "z")
        await pilot.pause()

    assert _shot(snap_compare, make_app(FakeBuyer()), "80x24", then)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["buyer", "seller"])
def test_real_money(snap_compare: Snap, mode: str, size: str) -> None:
    seller = FakeSeller(seller_status(network="Base", real_money=True))
    app = make_app(FakeBuyer(real_money=True), seller, mode=mode)
    assert _shot(snap_compare, app, size)


@pytest.mark.parametrize("size", SIZES)
def test_real_money_is_paid(snap_compare: Snap, script: Any, size: str) -> None:
    async def then(pilot: Pilot[None]) -> None:
        await pilot.press("n", "enter")
        pay = pilot.app.screen.query_one("#pay")
        await until(pilot, lambda: not pay.disabled)

    assert _shot(snap_compare, make_app(FakeBuyer(real_money=True), example=script), size, then)


def test_real_money_is_unlocked(snap_compare: Snap) -> None:
    buyer = FakeBuyer(real_money=True)
    buyer.identity = replace(buyer.identity, locked=True)
    assert _shot(snap_compare, make_app(buyer), "80x24", _keys("enter"))


def test_real_money_offline(snap_compare: Snap) -> None:
    assert _shot(snap_compare, make_app(FakeBuyer(jobs=[], fault=DOWN, real_money=True)), "80x24")


def test_real_money_that_is_not_allowed(snap_compare: Snap) -> None:
    buyer = FakeBuyer(real_money=True)
    barred = real_money_refused(BASE).detail
    buyer.identity = replace(buyer.identity, locked=True, barred=barred)
    assert _shot(snap_compare, make_app(buyer), "80x24", _keys("enter"))


def test_wizard_hides_secrets(
    snap_compare: Snap, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are shown; what was typed for them is not, here and on the last page."""
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    Path("key.pem").write_text("hunter3")
    app = make_app(FakeBuyer(), example=script)

    async def then(pilot: Pilot[None]) -> None:
        await pilot.press("n", "escape", "escape", "tab", "tab")
        await pilot.press(*"HF_TOKEN", "space", *"KEY=@key.pem", "space", *"PIN", "tab", *"hunter4")

    assert _shot(snap_compare, app, "80x24", then)


def test_wizard_review_with_secrets(snap_compare: Snap, script: Any) -> None:
    app = make_app(FakeBuyer(), example=script)

    async def then(pilot: Pilot[None]) -> None:
        await pilot.press("n", "escape", "escape", "tab", "tab", *"PIN", "tab", *"hunter4")
        await pilot.press("enter", "enter")

    assert _shot(snap_compare, app, "80x24", then)
