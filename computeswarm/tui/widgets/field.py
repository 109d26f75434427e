"""An input whose keys count in the order they were pressed, however fast they come."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual import events
from textual.suggester import Suggester
from textual.widgets import Input

from computeswarm.core.text import visible


class Field(Input):
    """One line of a form.

    Textual's ``Input`` inserts letters at once but sends editing keys and Enter the long way
    through the app, so in a burst they change places. This one acts on its own keys itself, and
    hands on what was typed after an Enter that moved the focus.
    """

    def __init__(
        self,
        value: str,
        *,
        name: str,
        entered: Callable[[], None],
        choices: tuple[str, ...] = (),
        hides: Callable[[str], bool] = lambda _: False,
        suggester: Suggester | None = None,
    ) -> None:
        """``entered`` is called at Enter, before another key is looked at; up and down go through
        the ``choices``; what ``hides`` says yes to is never drawn; right takes what the
        ``suggester`` proposes."""
        self._hides = hides
        super().__init__(
            value,
            id=f"field-{name}",
            compact=True,
            select_on_focus=False,
            max_length=20_000,
            password=hides(value),
            suggester=suggester,
        )
        self._entered = entered
        self._choices = choices

    @property
    def _value(self) -> Text:
        """What is drawn: a file's name may hold what a terminal would obey."""
        if self.password:
            return super()._value
        return Text(visible(self.value), no_wrap=True, overflow="ignore", end="")

    def watch_value(self, value: str) -> None:
        """Called before the new text is drawn."""
        self.password = self._hides(value)

    async def _on_key(self, event: events.Key) -> None:
        if self.screen.focused is not self:
            event.stop()
            event.prevent_default()
            self.app.post_message(events.Key(event.key, event.character))
        elif self._choices and event.key in ("up", "down"):
            event.stop()
            event.prevent_default()
            self._choose(1 if event.key == "down" else -1)
        elif not event.is_printable and (own := self._bindings.key_to_bindings.get(event.key)):
            event.stop()
            event.prevent_default()
            await self.run_action(own[0].action)

    def _choose(self, step: int) -> None:
        known = self.value in self._choices
        at = self._choices.index(self.value) + step if known else 0
        self.value = self._choices[at % len(self._choices)]
        self.cursor_position = len(self.value)

    async def action_submit(self) -> None:
        """Enter."""
        self._entered()
