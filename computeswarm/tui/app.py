"""The app: modes, connection, quitting, errors. Screens wire widgets to feeds; this holds them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.keymap import KEYS
from computeswarm.tui.screens.boot import BootScreen
from computeswarm.tui.theme import FALLBACKS, SWARM

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

FIRST_RETRY, LAST_RETRY = 1.0, 10.0


def _buyer_screen() -> Screen[None]:
    from computeswarm.tui.screens.buyer import BuyerScreen

    return BuyerScreen()


def _seller_screen() -> Screen[None]:
    from computeswarm.tui.screens.seller import SellerScreen

    return SellerScreen()


def _wallet_screen() -> Screen[None]:
    from computeswarm.tui.screens.wallet import WalletScreen

    return WalletScreen()


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
        clock: whose time the screens show.
    """

    CSS_PATH = "styles/app.tcss"
    TITLE = "ComputeSwarm"
    MODES: ClassVar[dict[str, str | Callable[[], Screen]]] = {  # type: ignore[type-arg]
        "buyer": _buyer_screen,
        "seller": _seller_screen,
        "wallet": _wallet_screen,
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
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.register_theme(SWARM)
        self.set_reactive(App.theme, SWARM.name)  # nothing is drawn yet that would have to change
        self.backends: Backends | None = None
        if buyer is not None:
            from computeswarm.tui.backend import Backends

            self.backends = Backends(buyer, seller, wallet=wallet)
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
        if self._connect is not None:
            self.run_worker(
                self._keep_connecting(), group="connect", exclusive=True, exit_on_error=False
            )

    async def _keep_connecting(self) -> None:
        from computeswarm.tui.messages import Connected, ConnectFailed

        assert self._connect is not None
        wait = FIRST_RETRY
        while True:
            try:
                self.backends = await self._connect()
            except ComputeSwarmError as error:
                for screen in self._mode_screens():
                    screen.post_message(ConnectFailed(error, wait))
                await asyncio.sleep(wait)
                wait = min(LAST_RETRY, wait * 2)
            else:
                for screen in self._mode_screens():
                    screen.post_message(Connected(self.backends))
                return

    def _mode_screens(self) -> list[Screen[None]]:
        return [stack[0] for stack in self._screen_stacks.values() if stack]

    # -- actions of the keymap

    async def action_mode(self, mode: str) -> None:
        """Buyer or seller; not from within a dialog."""
        if len(self.screen_stack) == 1:
            await self.switch_mode(mode)

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

    def action_help_quit(self) -> None:
        """Ctrl+C, which Textual only answers with the name of another key."""
        self.action_ask_quit()

    def _live_jobs(self) -> list[str]:
        from computeswarm.tui.screens.buyer import BuyerScreen

        for screen in self._mode_screens():
            if isinstance(screen, BuyerScreen):
                return screen.live_jobs()
        return []

    def get_system_commands(self, screen: Screen) -> list[SystemCommand]:  # type: ignore[type-arg]
        """The palette holds the keymap's actions, and the choice of a theme."""
        own = [
            SystemCommand(key.help, f"key {key.shown}", self._runner(key.action, screen))
            for key in KEYS
            if key.where in ("app", getattr(screen, "mode", "")) and key.id != "palette"
        ]
        return [*own, SystemCommand("Theme", "Change the colours", self.action_change_theme)]

    def _runner(self, action: str, screen: Screen) -> Callable[[], None]:  # type: ignore[type-arg]
        def run() -> None:
            self.call_later(self.run_action, action, screen)

        return run

    def say(self, text: str, *, title: str = "", severity: SeverityLevel = "information") -> None:
        """A notice in the corner; never read as markup."""
        self.notify(text, title=title, severity=severity, markup=False)

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
