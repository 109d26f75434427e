"""The app: modes, connection, quitting, errors. Screens wire widgets to feeds; this holds them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.text import clean
from computeswarm.tui.keys import Keys
from computeswarm.tui.screens.boot import BootScreen
from computeswarm.tui.theme import FALLBACKS, SWARM, THEMES

if TYPE_CHECKING:  # what the first frame doesn't need
    from computeswarm.tui.backend import (
        Backends,
        BuyerBackend,
        Connect,
        SellerBackend,
        WalletBackend,
    )
    from computeswarm.tui.draft import ExampleJob
    from computeswarm.tui.memory import Memory


def _mode(name: str) -> Callable[[], Screen[None]]:
    """Makes a mode's screen; its module is read when somebody goes there."""

    def make() -> Screen[None]:
        module = import_module(f"computeswarm.tui.screens.{name}")
        screen: Screen[None] = getattr(module, f"{name.title()}Screen")()
        return screen

    return make


class ComputeSwarmApp(App[None]):
    """Buyer and Seller in one.

    Args:
        buyer: the buyer's backend, where it is ready already.
        seller: the owner's backend, where a seller runs on this machine.
        wallet: the wallet's backend, where it is ready already.
        mode: ``buyer`` or ``seller``.
        connect: brings the backends after the first frame was drawn; tried again until it does.
        example: a job offered to whoever has none of his own.
        memory: what is remembered from one run to the next; by default only until the app ends.
        keys: the keymap with a person's own changes.
        clock: whose time the screens show.
    """

    CSS_PATH = "styles/app.tcss"
    TITLE = "ComputeSwarm"
    MODES: ClassVar[dict[str, str | Callable[[], Screen]]] = {  # type: ignore[type-arg]
        name: _mode(name) for name in ("buyer", "seller", "wallet")
    }
    DEFAULT_MODE = "boot"
    ENABLE_COMMAND_PALETTE = True
    NOTIFICATION_TIMEOUT = 6

    def __init__(
        self,
        buyer: BuyerBackend | None = None,
        seller: SellerBackend | None = None,
        *,
        mode: str = "buyer",
        connect: Connect | None = None,
        wallet: WalletBackend | None = None,
        example: ExampleJob | None = None,
        memory: Memory | None = None,
        keys: Keys | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.set_reactive(App.theme, SWARM.name)  # nothing is drawn yet that would have to change
        self.backends: Backends | None = None
        if buyer is not None:
            from computeswarm.tui.backend import Backends

            self.backends = Backends(buyer, seller, wallet=wallet)
        self.keys = keys or Keys()
        self.set_keymap(self.keys.textual)
        self.rings = self.tells_desktop = False
        """Whether an alert also rings the bell, and goes to the desktop."""
        self.example = example
        self._memory = memory
        self.clock: Clock = clock or SystemClock()
        self._connect = connect
        self._first_mode = mode
        self.add_mode("boot", lambda: BootScreen(mode, self.clock, self._booted))

    @property
    def memory(self) -> Memory:
        """What is remembered from one run to the next."""
        if self._memory is None:
            from computeswarm.tui.memory import Memory

            self._memory = Memory()
        return self._memory

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own variables, for the themes that don't have them."""
        return dict(FALLBACKS)

    def on_mount(self) -> None:
        self._catch_signals()

    def _booted(self) -> None:
        self.call_later(self._enter)

    async def _enter(self) -> None:
        """The first frame is out: now the widgets, then the connection."""
        await self.switch_mode(self._first_mode)
        from computeswarm.tui.connecting import begin

        begin(self, self._connect)

    def mode_screens(self) -> list[Screen[None]]:
        """The modes that were opened, without their dialogs."""
        return [stack[0] for stack in self._screen_stacks.values() if stack]

    # -- actions of the keymap

    async def action_mode(self, mode: str) -> None:
        """Buyer or seller; not from within a dialog."""
        if len(self.screen_stack) == 1:
            await self.switch_mode(mode)

    def action_welcome(self) -> None:
        """What this is, and how to begin."""
        from computeswarm.tui.welcome import welcome

        welcome(self)

    def action_help(self) -> None:
        from computeswarm.tui.modals.help import HelpModal

        if not isinstance(self.screen, HelpModal):
            self.push_screen(HelpModal())

    def action_ask_quit(self) -> None:
        """Leave; with a job on, ask first, because nobody will pay for it when this app is gone."""
        live = self._live_jobs()
        if not live:
            self.exit()
            return
        from computeswarm.tui.modals.ask import AskModal

        if isinstance(self.screen, AskModal):
            return  # it asks already
        who = f"{live[0]} runs" if len(live) == 1 else f"{len(live)} jobs run"
        question = AskModal(
            "Leave while a job runs?",
            f"{who} on until what is paid is used up, then that is the end.",
            "computeswarm logs JOB -f follows and pays it from a shell.",
            yes="Leave",
            no="Stay",
        )
        self.push_screen(question, lambda sure: self.exit() if sure else None)

    action_help_quit = action_ask_quit  # Ctrl+C, which Textual answers with another key's name

    def _live_jobs(self) -> list[str]:
        from computeswarm.tui.screens.buyer import BuyerScreen

        for screen in self.mode_screens():
            if isinstance(screen, BuyerScreen):
                return screen.live_jobs()
        return []

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette offers."""
        from computeswarm.tui.palette import commands

        return commands(self, screen)

    def say(self, text: str, *, title: str = "", severity: SeverityLevel = "information") -> None:
        """A notice in the corner; never read as markup."""
        self.notify(clean(text), title=clean(title), severity=severity, markup=False)

    def alert(self, text: str, *, title: str, severity: SeverityLevel = "information") -> None:
        """A notice of what somebody waits for: where it is wanted, the bell and the desktop too."""
        self.say(text, title=title, severity=severity)
        if self.rings:
            self.bell()
        if self.tells_desktop and self._driver is not None:
            from computeswarm.tui.notices import osc9

            self._driver.write(osc9(f"{title}: {text}"))

    def copy(self, text: str, what: str) -> None:
        """Copy by OSC 52; without a terminal that takes it, the text is shown to copy by hand."""
        from computeswarm.tui.modals.copy import CopyModal, takes_osc52

        if takes_osc52(self._driver):
            self.copy_to_clipboard(text)
            self.say(f"Copied {what}: {text}")
        else:
            self.push_screen(CopyModal(what, text))

    # -- errors and ends

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """The one place for a worker that broke: the app goes on and says so."""
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            error = event.worker.error
            text = error.detail if isinstance(error, ComputeSwarmError) else type(error).__name__
            self.say(f"{text}", title=f"{event.worker.group} stopped", severity="error")

    def _catch_signals(self) -> None:
        """Leave by the front door, so that the terminal is given back as it was."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not in a thread
                loop.add_signal_handler(number, self._leave, 128 + number)

    def _leave(self, code: int) -> None:
        self.exit(return_code=code)

    def _fatal_error(self) -> None:
        """Textual prints every local variable here, keys among them; the place is enough."""
        from rich.traceback import Traceback

        self.bell()
        self._exit_renderables.append(Traceback(show_locals=False, width=None, extra_lines=1))
        self._close_messages_no_wait()

    async def on_unmount(self) -> None:
        if self.backends is not None:
            with suppress(ComputeSwarmError):
                await self.backends.buyer.close()
            if self.backends.seller is not None:
                with suppress(ComputeSwarmError):
                    await self.backends.seller.close()
            if self.backends.wallet is not None:
                with suppress(ComputeSwarmError):
                    await self.backends.wallet.close()
