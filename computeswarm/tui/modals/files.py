"""Choosing files of this machine: one folder's list, narrowed as one types.

What is typed goes straight into the filter, so the list's letters do nothing here; arrows move.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import ClassVar, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Static

from computeswarm.core.text import visible
from computeswarm.tui.format import DASH, duration, size
from computeswarm.tui.keymap import bindings
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.paths import MOST, Entry, look
from computeswarm.tui.widgets.pane import line, lines
from computeswarm.tui.widgets.table import Column, Table

Wanted = Literal["file", "files", "folder"]
TITLES = {"file": "Choose a script", "files": "Choose input files", "folder": "Choose a folder"}
_HERE, _ABOVE = ".", ".."


class FileTable(Table[Entry]):
    """A list whose letters are typed into the filter, each key acting in the order it came."""

    async def _on_key(self, event: events.Key) -> None:
        picker = self.screen
        assert isinstance(picker, FilesModal)
        own = self._bindings.key_to_bindings.get(event.key)
        outer = picker._bindings.key_to_bindings.get(event.key)
        types = event.is_printable and not (event.key == "space" and picker.several)
        if types or event.key == "backspace":
            picker.type(event.character or "" if types else None)
        elif own:
            await self.run_action(own[0].action)
        elif outer:
            await picker.run_action(outer[0].action)
        else:
            return
        event.stop()
        event.prevent_default()


class FilesModal(Dialog[tuple[str, ...]]):
    """Dismissed with what was chosen as absolute paths, or with None.

    Args:
        wanted: one file, several files or folders, or one folder.
        folder: where to begin.
        marked: absolute paths that are chosen already.
    """

    BINDINGS: ClassVar = bindings("files")

    def __init__(self, wanted: Wanted, folder: str, marked: tuple[str, ...] = ()) -> None:
        super().__init__(TITLES[wanted])
        self._wanted: Wanted = wanted
        self._folder = folder
        self._marked = dict.fromkeys(marked)
        self._all: tuple[Entry, ...] = ()
        self._more = False
        self._trouble = ""
        self._needle = ""
        self._shows_hidden = False

    @property
    def several(self) -> bool:
        """Whether more than one can be chosen."""
        return self._wanted == "files"

    def content(self) -> ComposeResult:
        yield Static("", id="files-folder", markup=False)
        yield Static("", id="files-filter", markup=False)
        yield FileTable(self._columns(), lambda entry: entry.path, id="files-list")
        yield Static("", id="files-note", markup=False)
        with Horizontal(classes="buttons"):
            for name, label in (("cancel", "Cancel (esc)"), ("hidden", "Hidden (^t)"),
                                ("done", "Choose (⏎)")):  # fmt: skip
                button = Button(Content(label), id=f"files-{name}", compact=True)
                button.can_focus = False
                yield button

    def _columns(self) -> tuple[Column[Entry], ...]:
        def name(entry: Entry) -> tuple[str, str]:
            mark = "✓ " if entry.path in self._marked else "  " if self.several else ""
            text = f"{mark}{entry.shown}{'/' if entry.folder and entry.shown != _HERE else ''}"
            if entry.shown == _HERE:
                return f"✓ this folder, {visible(Path(self._folder).name) or '/'}", "success"
            if entry.broken:
                return f"{text}  ✗ leads nowhere", "error"
            return text, "accent" if entry.folder else "bright"

        def length(entry: Entry) -> tuple[str, str]:
            return ("folder" if entry.folder else size(entry.size)), "muted"

        def changed(entry: Entry) -> tuple[str, str]:
            old = self.swarm.clock.now() - entry.changed
            return (f"{duration(max(0, old))} ago" if entry.changed else DASH), "muted"

        return (
            Column("NAME", 20, name, grow=True),
            Column("SIZE", 7, length, right=True),
            Column("CHANGED", 14, changed, right=True, rank=1),
        )

    @property
    def table(self) -> FileTable:
        return self.query_one(FileTable)

    def on_mount(self) -> None:
        self.table.focus()
        more = "␣ marks · " if self.several else ""
        self.foot((f"type to filter · {more}⏎ opens, chooses · ← up · esc leaves", "$muted"))
        self._go(self._folder)

    # -- where we are

    def _go(self, folder: str, land: str = "") -> None:
        """Show another folder; the cursor lands on the entry of that path."""
        self._folder, self._needle, self._all, self._trouble = folder, "", (), ""
        self._show("◌ Looking…")
        self.run_worker(
            self._load(folder, land), group="files", exclusive=True, exit_on_error=False
        )

    async def _load(self, folder: str, land: str) -> None:
        try:
            listing = await asyncio.to_thread(look, folder)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._trouble = f"This folder can't be read: {visible(why or type(error).__name__)}."
        else:
            self._all, self._more = listing.entries, listing.more
        self._show()
        if land:
            self.table.select(land)

    # -- what is shown

    def _show(self, note: str = "") -> None:
        here = visible(self._folder)
        room = max(20, self.table.size.width - 2) if self.table.size.width else 70
        cut = here if len(here) <= room else f"…{here[-room + 1 :]}"
        self.query_one("#files-folder", Static).update(line((cut, "bold $primary")))
        typed = (self._needle, "bold") if self._needle else ("type to filter", "$faint")
        self.query_one("#files-filter", Static).update(line(("/ ", "$muted"), typed))
        fixed, fitting = self._fixed(), self._fitting()
        self.table.set_rows([*fixed, *fitting])
        if self._needle or not self.table.current:
            self.table.cursor = len(fixed) if fitting else 0
        self.query_one("#files-note", Static).update(self._note(note, len(fitting)))

    def _fixed(self) -> list[Entry]:
        rows = [Entry(self._folder, _HERE, folder=True)] if self._wanted == "folder" else []
        above = os.path.dirname(self._folder)  # noqa: PTH120 -- an exact name, links and all
        return rows if above == self._folder else [*rows, Entry(above, _ABOVE, folder=True)]

    def _fitting(self) -> list[Entry]:
        needle = self._needle.casefold()
        hidden = self._shows_hidden or needle.startswith(".")
        return [
            entry
            for entry in self._all
            if (hidden or not entry.hidden)
            and (entry.folder or self._wanted != "folder")
            and needle in entry.shown.casefold()
        ]

    def _note(self, note: str, fitting: int) -> Content:
        if note:
            return line((note, "$muted"))
        if self._trouble:
            return lines(
                line((f"✗ {self._trouble}", "$error")),
                line(("← goes to the folder above; a path can also be typed.", "$muted")),
            )
        word = "fits" if self._needle else "here"
        count = f"{fitting:,} {word}" if fitting else f"◇ Nothing {word}"
        unseen = sum(entry.hidden for entry in self._all) if not self._shows_hidden else 0
        parts = [count, f"{unseen} hidden" if unseen else ""]
        parts.append(f"✓ {len(self._marked)} marked" if self._marked else "")
        rows = [line((" · ".join(part for part in parts if part), "$muted"))]
        if self._more:
            rows.append(line((f"! Only {MOST:,} of more are listed; type a path.", "$warning")))
        return lines(*rows)

    # -- keys

    def type(self, text: str | None) -> None:
        """More of the filter; None takes its last letter, or goes up where there is none."""
        if text is None and not self._needle:
            self.action_parent()
            return
        self._needle = self._needle[:-1] if text is None else self._needle + text
        self._show()

    def action_parent(self) -> None:
        above = os.path.dirname(self._folder)  # noqa: PTH120
        if above != self._folder:
            self._go(above, land=self._folder)

    def action_open(self) -> None:
        entry = self.table.current
        if entry is not None and entry.folder and entry.shown != _HERE:
            if entry.shown == _ABOVE:
                self.action_parent()
            else:
                self._go(entry.path)

    def action_choose(self) -> None:
        entry = self.table.current
        if entry is None or (entry.folder and entry.shown != _HERE):
            self.action_open()
        else:
            self.action_done()

    def action_done(self) -> None:
        """What is marked; otherwise what the cursor is on."""
        entry = self.table.current
        if self._wanted == "folder":
            self.dismiss((self._folder,))
        elif self._marked:
            self.dismiss(tuple(self._marked))
        elif entry is None or entry.broken or (entry.folder and not self.several):
            self._show("That is nothing to choose; ⏎ opens a folder.")
        elif entry.shown != _ABOVE:
            self.dismiss((entry.path,))

    def action_mark(self) -> None:
        entry = self.table.current
        if not self.several or entry is None or entry.shown == _ABOVE or entry.broken:
            return
        if entry.path in self._marked:
            del self._marked[entry.path]
        else:
            self._marked[entry.path] = None
        self.query_one("#files-note", Static).update(self._note("", len(self._fitting())))
        self.table.action_down()
        self.table.refresh()

    def action_hidden(self) -> None:
        self._shows_hidden = not self._shows_hidden
        self._show()

    # -- mouse

    def on_button_pressed(self, event: Button.Pressed) -> None:
        match event.button.id:
            case "files-hidden":
                self.action_hidden()
            case "files-done":
                self.action_choose()
            case _:
                self.action_leave()

    @on(FileTable.Chosen)
    def _clicked(self) -> None:
        self.action_choose()
