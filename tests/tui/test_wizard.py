"""The wizard: its steps, files to choose, drafts that are kept, the command that does the same."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Static
from tui_drive import buyer_screen, example, make_app, settled, until
from tui_fake import FakeBuyer, node

from computeswarm.cli.commands import run as run_command
from computeswarm.tui.draft import STEPS, JobDraft
from computeswarm.tui.draft_checks import problem, warning
from computeswarm.tui.memory import Memory
from computeswarm.tui.modals.files import FilesModal
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.widgets.field import Field

SIZE = (100, 32)


def _text(screen: Any, selector: str) -> str:
    return str(screen.query_one(selector, Static).visual)


def _put(wizard: WizardModal, **texts: str) -> None:
    for name, text in texts.items():
        wizard.query_one(f"#field-{name}", Field).value = text


async def test_a_draft_is_kept_for_the_next_start_and_can_be_dropped(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)\n")
    path = tmp_path / "terminal.json"
    app = make_app(FakeBuyer(), memory=Memory(path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        assert isinstance(app.screen, WizardModal)
        _put(app.screen, script=str(script), args="--fast", secrets="PIN", secret_values="hunter2")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
    assert "hunter2" not in path.read_text()

    app = make_app(FakeBuyer(), memory=Memory(path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        assert "Your draft of train.py" in _text(wizard, "#wizard-banner")
        assert wizard.draft.args == "--fast"
        assert wizard.draft.secret_values == ""
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not wizard.draft.script)
        assert _text(wizard, "#wizard-banner") == ""
        assert wizard.query_one("#field-args", Field).value == ""


async def test_the_last_job_is_offered_and_one_key_brings_it_again(tmp_path: Path) -> None:
    memory = Memory()
    buyer = FakeBuyer()
    app = make_app(buyer, memory=memory, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("R")
        await pilot.pause()
        assert app.screen is buyer_screen(pilot)  # nothing was bought here yet, and that is said
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay").disabled)
        await pilot.press("p")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
        assert memory.draft is None
        assert memory.last_job is not None
        assert memory.last_job.name == "monte_carlo.py"
        (bought,) = [job for job in buyer.journal if job.job_id.startswith("job-777e")]
        assert memory.job_draft(bought.job_id) == memory.last_job
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        assert isinstance(app.screen, WizardModal)
        assert STEPS[app.screen.step] == "Review"
        assert _text(app.screen, "#wizard-banner") == "The same again: monte_carlo.py"
        await pilot.press(*["escape"] * 5)
        await until(pilot, lambda: app.screen is buyer_screen(pilot))


async def test_a_job_that_nobody_waited_for_is_not_offered_as_a_draft(tmp_path: Path) -> None:
    memory, buyer = Memory(), FakeBuyer()
    buyer.slow_buy = asyncio.Event()
    app = make_app(buyer, memory=memory, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        chosen = buyer_screen(pilot).selected_node
        assert chosen is not None
        await pilot.press(*["enter"] * 5)
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay").disabled)
        await pilot.press("p", "escape")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
        assert memory.draft is not None
        buyer.slow_buy.set()
        await until(pilot, lambda: memory.draft is None)
        assert memory.last_job is not None
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        assert isinstance(app.screen, WizardModal)
        assert app.screen.draft.node_id == chosen.node_id  # where it ran before


async def test_the_pay_button_is_in_sight_however_long_the_terms(tmp_path: Path) -> None:
    buyer = FakeBuyer()
    asked = buyer.offer

    async def offer(draft: JobDraft) -> Any:
        terms = tuple((f"Term {n}", "a sentence that fills its line " * 2) for n in range(8))
        return replace(await asked(draft), conditions=terms)

    buyer.offer = offer  # type: ignore[method-assign]
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        button = app.screen.query_one("#pay")
        await until(pilot, lambda: not button.disabled)
        assert button.region.height == 1
        assert button.region.bottom < 24
        scroll = app.screen.query_one("#pay-scroll")
        assert scroll.max_scroll_y > 0
        await pilot.press("down")
        await until(pilot, lambda: scroll.scroll_y > 0)


async def test_a_script_is_chosen_from_a_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "b.py").write_text("print(2)\n")
    (tmp_path / "[red]\x1b[31mx.py").write_text("print(1)\n")
    (tmp_path / ".hidden.py").write_text("print(0)\n")
    app = make_app(FakeBuyer())
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, FilesModal))
        files = app.screen
        assert isinstance(files, FilesModal)

        def names() -> list[str]:
            return [row.shown for row in files.table.rows]

        await until(pilot, lambda: "jobs" in names())
        assert ".hidden.py" not in names()
        assert "\x1b" not in app.export_screenshot()
        await pilot.press("ctrl+t")
        await until(pilot, lambda: ".hidden.py" in names())
        await pilot.press(*"jobs")
        await until(pilot, lambda: files.table.current and files.table.current.shown == "jobs")
        await pilot.press("enter")
        await until(pilot, lambda: "b.py" in names())
        await until(pilot, lambda: files.table.current is not None)
        files.table.select(str(tmp_path / "jobs" / "b.py"))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is wizard)
        assert wizard.query_one("#field-script", Field).value == "jobs/b.py"
        assert problem(wizard.draft, "script") == ""


@pytest.mark.parametrize(
    ("fields", "name", "words"),
    [
        ({"gpus": "9"}, "gpus", "1"),
        ({"max_time": "48h"}, "max_time", "1 d"),
        ({"budget": "0"}, "budget", "more than nothing"),
        ({"script": "/nowhere.py"}, "script", "no such file"),
    ],
)
def test_a_draft_is_held_against_the_node_it_is_for(
    fields: dict[str, str], name: str, words: str
) -> None:
    assert words in problem(JobDraft(**fields), name, node(0))


def test_an_image_the_node_does_not_name_is_only_doubted() -> None:
    draft = JobDraft(image="torch-nightly")
    assert problem(draft, "image", node(0)) == ""
    assert "python" in warning(draft, "image", node(0))


_WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12
)


@given(
    script=_WORD,
    args=st.lists(_WORD, max_size=3),
    inputs=st.lists(_WORD, max_size=3),
    values=st.lists(_WORD, max_size=2),
    budget=st.sampled_from(["0.50", "2", "-1"]),
    channel=st.booleans(),
    internet=st.booleans(),
)
def test_the_command_line_means_the_same_job(
    script: str,
    args: list[str],
    inputs: list[str],
    values: list[str],
    budget: str,
    channel: bool,
    internet: bool,
) -> None:
    draft = JobDraft(
        script=script,
        args=shlex.join(args),
        inputs=shlex.join(inputs),
        env=shlex.join(f"V{n}={value}" for n, value in enumerate(values)),
        budget=budget,
        pay="channel" if channel else "slices",
        internet="yes" if internet else "no",
    )
    line = draft.command_line()
    if "$'" in line:  # spelled for bash; shlex doesn't read that
        return
    words = shlex.split(line)
    assert words[:2] == ["computeswarm", "run"]
    own = words[2 : words.index("--")] if "--" in words else words[2:]
    rest = words[words.index("--") + 1 :] if "--" in words else []
    parser = argparse.ArgumentParser(exit_on_error=False)
    run_command.configure(parser)
    read = parser.parse_args(own)
    assert read.script in (script, f"./{script}")
    assert rest == args
    assert read.input == inputs
    assert read.env == [f"V{n}={value}" for n, value in enumerate(values)]
    assert read.budget == budget
    assert read.pay == ("channel" if channel else None)
    assert read.internet is internet
    assert read.gpus == 0
