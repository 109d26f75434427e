"""A job's secrets in the wizard: named in clear, never drawn, and handed on to the buyer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.widgets import Input
from tui_drive import make_app, settled, until
from tui_fake import FakeBuyer

from computeswarm.core.errors import BadRequest
from computeswarm.tui.draft import ExampleJob, JobDraft
from computeswarm.tui.modals.wizard import WizardModal

SIZE = (100, 30)
CANARY = "canary-in-the-field"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExampleJob:
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text("print(4)\n")
    return ExampleJob(Path("job.py"))


async def test_what_is_typed_for_a_secret_is_never_drawn_and_reaches_the_buyer(
    example: ExampleJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "from-the-environment")
    Path("key.pem").write_text("pem-content\nlines\n")
    buyer, drafts = FakeBuyer(), []
    asked = buyer.offer

    async def offer(draft: JobDraft) -> Any:
        drafts.append(draft)
        return await asked(draft)

    monkeypatch.setattr(buyer, "offer", offer)
    app = make_app(buyer, example=example)
    async with app.run_test(size=SIZE) as pilot:
        drawn: list[str] = []

        async def press(*keys: str) -> None:
            for key in keys:
                await pilot.press(key)
                drawn.append(app.export_screenshot())

        await settled(pilot)
        await press("n", *["escape"] * 3, *["tab"] * 4, "down", "enter", "tab", "tab")
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        await press(*"HF_TOKEN KEY=@key.pem PIN", "enter")
        problem = wizard.query_one("#problem-secret_values")
        assert "1, for PIN" in str(problem.visual)  # type: ignore[attr-defined]
        for character in CANARY:
            await press(character)
        assert wizard.query_one("#field-secret_values", Input).password
        await press("enter", "enter")
        assert wizard.step == 4
        line = wizard.draft.command_line()
        assert "--secret HF_TOKEN --secret KEY=@key.pem --secret PIN --internet" in line
        await press("enter")
        await until(pilot, lambda: bool(drafts))
        drawn.append(app.export_screenshot())
        for hidden in (CANARY, CANARY[:6], "from-the-environment", "pem-content"):
            assert not any(hidden in picture for picture in drawn), hidden
        assert any("PIN" in picture for picture in drawn)
    (draft,) = drafts
    assert draft.network
    assert draft.secret_map() == {
        "HF_TOKEN": "from-the-environment",
        "KEY": "pem-content\nlines",
        "PIN": CANARY,
    }
    assert CANARY not in repr(draft)


async def test_a_value_in_the_wrong_field_is_hidden_at_once_and_refused(
    example: ExampleJob,
) -> None:
    app = make_app(FakeBuyer(), example=example)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", "escape", "escape", "tab", "tab")
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        field = wizard.query_one("#field-secrets", Input)
        await until(pilot, lambda: app.focused is field)
        field.post_message(events.Paste(f"TOKEN={CANARY}"))
        await until(pilot, lambda: CANARY in field.value)
        assert field.password and CANARY not in app.export_screenshot()
        await pilot.press("enter")
        assert wizard.step == 2
        assert "stay hidden" in str(wizard.query_one("#problem-secrets").visual)  # type: ignore[attr-defined]
        assert CANARY not in app.export_screenshot()


@pytest.mark.parametrize(
    ("fields", "name", "words"),
    [
        ({"secrets": "A A"}, "secrets", "twice"),
        ({"secrets": "A", "env": "A=1"}, "secrets", "twice"),
        ({"secrets": "A=@nowhere"}, "secrets", "no such file"),
        ({"secrets": "1A"}, "secrets", "Names of variables"),
        ({"secrets": "'"}, "secrets", "quotation mark"),
        ({"secrets": "A B", "secret_values": "x"}, "secret_values", "2, for A, B"),
        ({"secret_values": "x"}, "secret_values", "Name the secrets first"),
        ({"internet": "maybe"}, "internet", "yes or no"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, str], name: str, words: str) -> None:
    draft = JobDraft(**fields)
    assert words in draft.problem(name)
    if name != "internet":
        with pytest.raises(BadRequest):
            draft.secret_map()
