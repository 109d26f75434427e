"""What both modes share: header, footer, zoom, and keys that say why they can't."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.widgets.footer import Footer
from computeswarm.tui.widgets.header import Header, Link
from computeswarm.tui.widgets.pane import Pane

if TYPE_CHECKING:
    from computeswarm.tui.app import ComputeSwarmApp


class ModeScreen(Screen[None]):
    """A mode. Subclasses give ``body`` and say in ``refusal`` which actions can't run and why."""

    mode = ""
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 -- as Textual declares it
        (0, "-narrow"),
        (100, "-wide"),
        (160, "-vast"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 -- as Textual declares it
        (0, "-short"),
        (32, "-tall"),
        (52, "-high"),
    ]

    @property
    def swarm(self) -> ComputeSwarmApp:
        """The app, by its own type."""
        from computeswarm.tui.app import ComputeSwarmApp

        assert isinstance(self.app, ComputeSwarmApp)
        return self.app

    def compose(self) -> ComposeResult:
        self._fit()
        yield Header(self.mode, self.swarm.clock)
        yield from self.body()
        yield Footer(self.mode, self.refusal)

    def _fit(self) -> None:
        """Take the breakpoints' classes before there are widgets that would be styled again."""
        for size, points in zip(
            self.app.size, (self.HORIZONTAL_BREAKPOINTS, self.VERTICAL_BREAKPOINTS), strict=True
        ):
            passed = [name for least, name in points if size >= least]
            self._classes.update(passed[-1:])

    def body(self) -> list[Widget]:
        raise NotImplementedError

    def refusal(self, action: str) -> str:
        """Why an action can't run now; empty when it can."""
        raise NotImplementedError

    def refused(self, action: str) -> bool:
        """Say why an action can't run, if it can't."""
        why = self.refusal(action)
        if why:
            self.swarm.say(why, severity="warning")
        return bool(why)

    async def attempt(self, work: Awaitable[None], done: str) -> None:
        """Do what was ordered, and say that it is done, or why not."""
        try:
            await work
        except ComputeSwarmError as error:
            self.swarm.say(error.detail, title=error.title, severity="error")
        else:
            self.swarm.say(done)

    @property
    def now(self) -> float:
        return self.swarm.clock.now()

    # -- connection

    def link_good(self) -> None:
        """An answer came."""
        header = self.query_one(Header)
        if header.link.state == "offline":
            self.swarm.say("Connected again.")
        header.link = Link("live", self.now)

    def link_broken(self, error: ComputeSwarmError) -> None:
        """None came; say so once, and keep the moment it broke off."""
        header = self.query_one(Header)
        if header.link.state != "offline":
            header.link = Link("offline", self.now)
            self.swarm.say(
                f"{error.detail} Trying again by itself.", title=error.title, severity="error"
            )

    # -- panes

    def focused_pane(self) -> Pane | None:
        """The pane that holds the focus."""
        node: Widget | None = self.focused
        while node is not None and not isinstance(node, Pane):
            node = node.parent if isinstance(node.parent, Widget) else None
        return node

    def action_zoom(self) -> None:
        """The focused pane alone, or all again."""
        pane = self.focused_pane()
        if self.has_class("-zoomed") or pane is None:
            self.unzoom()
        else:
            pane.set_class(True, "-zoom")
            self.set_class(True, "-zoomed")

    def unzoom(self) -> None:
        self.set_class(False, "-zoomed")
        for pane in self.query(Pane):
            pane.set_class(False, "-zoom")

    def refresh_footer(self) -> None:
        self.query_one(Footer).refresh()
