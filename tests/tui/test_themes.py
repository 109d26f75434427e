"""Every theme can be read: each tone of text against each ground it may stand on."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import Theme
from tui_drive import make_app, settled
from tui_fake import FakeBuyer
from tui_fake_seller import FakeSeller

from computeswarm.tui.theme import CONTRAST, SIXTEEN, SWARM, THEMES, fitting

TONES = ("primary", "secondary", "success", "warning", "error", "foreground")
OWN = ("muted", "bright")
GROUNDS = ("background", "surface")


def _ratio(one: Color, other: Color) -> float:
    """WCAG 2.2's contrast ratio."""

    def light(colour: Color) -> float:
        parts = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in colour.normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    first, second = sorted((light(one), light(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


@pytest.mark.parametrize("theme", [t for t in THEMES if not t.ansi], ids=lambda t: t.name)
def test_text_stands_out(theme: Theme) -> None:
    least = 7.0 if theme is CONTRAST else 4.5
    colours = {name: getattr(theme, name) for name in TONES}
    colours |= {name: theme.variables[name] for name in OWN}
    grounds = {name: getattr(theme, name) for name in GROUNDS}
    grounds |= {name: theme.variables[name] for name in ("cursor", "cursor-quiet")}
    for name, colour in colours.items():
        for ground, paper in grounds.items():
            ratio = _ratio(Color.parse(colour), Color.parse(paper))
            assert ratio >= least, f"{theme.name}: {name} on {ground} is {ratio:.2f}"
    # what is not available now is to be read as well
    faint = _ratio(Color.parse(theme.variables["faint"]), Color.parse(theme.background or ""))
    assert faint >= (7.0 if theme is CONTRAST else 3.0)


def test_sixteen_colours_are_the_terminals_own() -> None:
    for name in (*TONES, *GROUNDS):
        assert getattr(SIXTEEN, name).startswith("ansi_")
    assert all(value.startswith("ansi_") for value in SIXTEEN.variables.values())


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"TERM": "xterm-256color"}, SWARM.name),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, SWARM.name),
        ({"TERM": "xterm"}, SIXTEEN.name),
        ({"TERM": "linux"}, SIXTEEN.name),
        ({"TERM": "xterm-kitty"}, SWARM.name),
    ],
)
def test_a_poor_terminal_gets_its_own_colours(environ: dict[str, str], name: str) -> None:
    assert fitting(environ) == name


@pytest.mark.parametrize("theme", [t.name for t in THEMES] + ["textual-light", "nord"])
async def test_every_mode_is_drawn_in_every_theme(theme: str) -> None:
    app = make_app(FakeBuyer(), FakeSeller())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        app.theme = theme
        for key in ("2", "3", "1", "question_mark"):
            await pilot.press(key)
            await pilot.pause()
        assert "<svg" in app.export_screenshot()
