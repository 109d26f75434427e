"""The frame of every dialog: a titled box in the middle; escape leaves it, nothing is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import ModalScreen

from computeswarm.tui.widgets.pane import Part, line

if TYPE_CHECKING:
    from computeswarm.tui.app import ComputeSwarmApp

Result = TypeVar("Result")


class Box(Container):
    """The box."""


class Dialog(ModalScreen[Result]):
    """Subclasses give ``content`` and a title."""

    AUTO_FOCUS = ""
    CSS_PATH = "../styles/dialogs.tcss"
    BINDINGS: ClassVar = [Binding("escape", "leave", "close", show=False, id="dialog.leave")]

    SPENDS: ClassVar[bool] = False
    """On the way to a payment: with real money it is framed in red, and its title says so."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    @property
    def real_money(self) -> bool:
        """Whether what the buyer spends is worth something."""
        backends = self.swarm.backends
        return backends is not None and backends.buyer.identity.real_money

    @property
    def swarm(self) -> ComputeSwarmApp:
        """The app, by its own type."""
        from computeswarm.tui.app import ComputeSwarmApp

        assert isinstance(self.app, ComputeSwarmApp)
        return self.app

    def compose(self) -> ComposeResult:
        with Box() as box:
            box.border_title = line(self._title)
            if self.SPENDS and self.real_money:
                self.add_class("-real-money")
                box.border_title = line(f"{self._title} · REAL MONEY")
            yield from self.content()

    def content(self) -> ComposeResult:
        raise NotImplementedError

    def foot(self, *parts: Part) -> None:
        """The words in the box's lower edge."""
        self.query_one(Box).border_subtitle = line(*parts)

    def action_leave(self) -> None:
        self.dismiss(None)
