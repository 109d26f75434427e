"""All keys, searchable; made from the keymap."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from computeswarm.tui.keymap import GROUPS, Key
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.widgets.pane import line, lines


class HelpModal(Dialog[None]):
    def __init__(self) -> None:
        super().__init__("Help")

    def content(self) -> ComposeResult:
        yield Input(placeholder="search keys", id="help-search", compact=True)
        with VerticalScroll(id="help-list", can_focus=False):
            yield Static(id="help-text", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.foot(("esc closes · ↑ ↓ scroll", "$muted"))
        self._fill("")

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value.strip().lower())

    def key_down(self) -> None:
        self.query_one("#help-list").scroll_down(animate=False)

    def key_up(self) -> None:
        self.query_one("#help-list").scroll_up(animate=False)

    def key_pagedown(self) -> None:
        self.query_one("#help-list").scroll_page_down(animate=False)

    def key_pageup(self) -> None:
        self.query_one("#help-list").scroll_page_up(animate=False)

    def _fill(self, needle: str) -> None:
        rows: list[Content] = []
        for where, name in GROUPS.items():
            keys = [
                key
                for key in self.swarm.keys.all
                if key.where == where
                and needle in f"{key.shown} {key.label} {key.help} {key.id}".lower()
            ]
            if keys:
                rows.append(line((name, "bold $primary")))
                rows += [
                    line((f"  {k.shown:<7}", "bold"), (f"{k.help:<36}", "$muted"), (k.id, "$faint"))
                    for k in keys
                ]
                rows.append(line(""))
        rows += _language(needle)
        if not rows:
            rows.append(line(("No key does that.", "$muted")))
        self.query_one("#help-text", Static).update(lines(*rows))


def _says(key: Key, needle: str) -> bool:
    return needle in f"{key.shown} {key.label} {key.help} {key.id}".lower()


def _language(needle: str) -> list[Content]:
    """The filter's language, as far as it was searched for."""
    from computeswarm.core.query import FIELDS, RULES, describe

    fields = [
        (field.example, describe(field))
        for field in FIELDS.values()
        if any(needle in text.lower() for text in (field.name, field.about, *field.aliases))
    ]
    rules = [rule for rule in RULES if not needle or needle in "filter query"]
    entries = [*rules, *fields]
    if not entries:
        return []
    return [
        line(("Filter", "bold $primary")),
        *(line((f"  {word:<21}", "bold"), (meaning, "$muted")) for word, meaning in entries),
    ]
