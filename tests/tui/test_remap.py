"""A person's own keys: how they are read, and that everything follows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tui_drive import make_app, settled, until
from tui_fake import FakeBuyer

from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths, Settings
from computeswarm.tui.keymap import KEYS
from computeswarm.tui.keys import Keys, shown, spelled
from computeswarm.tui.modals.ask import AskModal
from computeswarm.tui.modals.help import HelpModal
from computeswarm.tui.widgets.footer import Footer


def test_the_table_itself_is_free_of_clashes() -> None:
    """What a person changes is measured by the same rule as what we ship."""
    Keys({key.id: key.keys for key in KEYS if key.where == "app"})


@pytest.mark.parametrize(
    ("written", "key"),
    [("x", "x"), ("X", "X"), ("/", "slash"), ("?", "question_mark"), (",", "comma"), (" ", "space"),
     ("^s", "ctrl+s"), ("ctrl+s", "ctrl+s"), ("f5", "f5"), ("pageup", "pageup"), ("alt+x", "alt+x"),
     ("", ""), ("xx", ""), ("ctrl+", ""), ("f13", ""), ("\x1b", ""), ("ä", "")],
)  # fmt: skip
def test_how_a_key_may_be_written(written: str, key: str) -> None:
    assert spelled(written) == key


def test_how_keys_are_shown() -> None:
    assert shown("ctrl+s") == "^s"
    assert shown("j,down") == "j ↓"
    assert shown("slash") == "/"
    assert shown("shift+tab") == "⇧tab"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"job.cancle": "X"}, 'did you mean "job.cancel"?'),
        ({"zzz": "X"}, "shows each key's id"),
        ({"job.cancel": "nothing"}, "names no key"),
        ({"job.cancel": ""}, "names no key"),
        ({"job.cancel": "d"}, '"job.download"'),
        ({"job.cancel": "q"}, '"quit"'),
        ({"help": "x"}, '"job.cancel"'),
    ],
)
def test_what_cannot_be_is_said(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Keys(changes)
    assert words in refused.value.detail


def test_two_keys_can_change_places() -> None:
    keys = Keys({"job.cancel": "d", "job.download": "x"})
    assert keys.textual == {"buyer.job.cancel": "d", "buyer.job.download": "x"}


def test_the_file_brings_them(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('theme = "swarm-light"\n[keys]\n"job.cancel" = "X"\n')
    paths = Paths(tmp_path, tmp_path, tmp_path)
    assert Settings.load(environ={}, paths=paths).keys == {"job.cancel": "X"}
    for wrong in ("keys = 7", "[keys]\n'job.cancel' = 7", "keys = ['x']"):
        (tmp_path / "config.toml").write_text(wrong)
        with pytest.raises(ConfigError, match="keys"):
            Settings.load(environ={}, paths=paths)


async def test_the_key_the_footer_and_the_help_follow() -> None:
    app = make_app(FakeBuyer(), keys=Keys({"job.cancel": "X", "help": "f1"}))
    async with app.run_test(size=(160, 40)) as pilot:
        await settled(pilot)
        assert "X cancel" in str(app.screen.query_one(Footer).render())
        await pilot.press("x")
        await pilot.pause()
        assert not isinstance(app.screen, AskModal)
        await pilot.press("X")
        await until(pilot, lambda: isinstance(app.screen, AskModal))
        await pilot.press("escape")
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpModal))
        text = str(app.screen.query_one("#help-text").render())
        assert "X      Cancel the job" in text
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpModal))
