"""A framed part of a screen, and what it says while it has nothing to show."""

from __future__ import annotations

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

Part = tuple[str, str] | str


def line(*parts: Part) -> Content:
    """One line of content from text and (text, style) pairs; nothing in it is read as markup."""
    return Content.assemble(*parts)


def lines(*rows: Content) -> Content:
    """Rows below one another."""
    return Content("\n").join(rows)


class Notice(Static):
    """A designed state: what is so, and what to do next."""

    def say(self, glyph: str, title: str, *hints: str, tone: str = "$muted") -> None:
        """Show a title under a glyph, and hints below, centred."""
        head = line((glyph, tone), "\n", (title, f"bold {tone}"))
        self.update(lines(head, *(line((hint, "$muted")) for hint in hints)))


class Pane(Vertical):
    """A frame with a title; it shows its body, or a notice in the body's place."""

    body: str = ""
    """Selector of the part that a notice stands in for."""

    DEFAULT_CLASSES = "-notice"

    def head(self, *parts: Part) -> None:
        """The title in the upper edge."""
        self.border_title = line(*parts)

    def foot(self, *parts: Part) -> None:
        """The words in the lower edge."""
        self.border_subtitle = line(*parts)

    def notice(self, glyph: str, title: str, *hints: str, tone: str = "$muted") -> None:
        """Show a notice instead of the body."""
        self.query_one(Notice).say(glyph, title, *hints, tone=tone)
        self.set_class(True, "-notice")

    def show_body(self) -> None:
        self.set_class(False, "-notice")
