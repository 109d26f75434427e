"""A new job in five steps, from Script to Review. Enter goes on, escape back.

This is how one moves; what a step says stands in ``wizard_notes``, what is wrong with a field in
``draft_checks``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input, Static

from computeswarm.core.errors import BadRequest
from computeswarm.core.text import visible
from computeswarm.tui.draft import CHOICES, FIELDS, HIDDEN, STEPS, JobDraft, from_here
from computeswarm.tui.draft_checks import problem, warning
from computeswarm.tui.keymap import bindings
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.modals.wizard_notes import LABELS, Facts, note
from computeswarm.tui.paths import PathSuggester, nearest_folder
from computeswarm.tui.shell import join, split
from computeswarm.tui.widgets.field import Field
from computeswarm.tui.widgets.pane import line

KEEP_AFTER = 0.5
"""Seconds of rest after which a draft that was changed is kept."""
PICKED = {"script": "file", "inputs": "files", "output": "folder"}
"""Fields that hold paths, and what is chosen for them."""


@dataclass(frozen=True, slots=True)
class Start:
    """How the wizard opens."""

    step: str = STEPS[0]
    banner: str = ""
    """Where the draft comes from, if it isn't a new one."""
    fresh: JobDraft = dataclasses.field(default_factory=JobDraft)
    """What the fields hold when somebody starts anew."""


class StepTab(Static):
    """A step's name in the upper row; a click goes there."""

    class Clicked(Message):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, number: int) -> None:
        super().__init__("", id=f"tab-{STEPS[number].lower()}", classes="tab", markup=False)
        self._number = number

    def on_click(self) -> None:
        self.post_message(self.Clicked(self._number))

    def show(self, current: int, *, wrong: bool) -> None:
        """Its mark: done, wrong, here, or its number."""
        number, name = self._number, STEPS[self._number]
        if number == current:
            text = line((f"▸ {name}", "bold $primary"))
        elif number < current:
            text = line((f"✗ {name}", "$error") if wrong else (f"✓ {name}", "$success"))
        else:
            text = line((f"{number + 1} {name}", "$muted"))
        self.update(text)


class WizardModal(Dialog[tuple[JobDraft, bool]]):
    """Dismissed with the draft and whether to buy.

    Args:
        facts: the draft to begin with, and what it is held against.
        start: where it opens, and what is said about the draft.
        keep: called with the draft now and then, and when it is left.
    """

    SPENDS = True
    BINDINGS: ClassVar = bindings("wizard")

    def __init__(
        self,
        facts: Facts,
        start: Start | None = None,
        keep: Callable[[JobDraft], None] = lambda _: None,
    ) -> None:
        super().__init__("New job")
        self._facts, self._begin, self._keep = facts, start or Start(), keep
        self.step = STEPS.index(self._begin.step)
        self._insisted: set[str] = set()
        """Fields that have been found wrong when somebody wanted to go on."""
        self._unkept = False

    @property
    def draft(self) -> JobDraft:
        return self._facts.draft

    @draft.setter
    def draft(self, draft: JobDraft) -> None:
        self._facts = replace(self._facts, draft=draft)

    def content(self) -> ComposeResult:
        with Horizontal(id="wizard-steps"):
            for number in range(len(STEPS)):
                yield StepTab(number)
        yield Static(line((self._begin.banner, "$secondary")), id="wizard-banner")
        for step in STEPS:
            with VerticalScroll(id=f"step-{step.lower()}", classes="step"):
                note = Static("", id=f"note-{step.lower()}", classes="note", markup=False)
                if step == "Resources":  # about the node, before what is asked of it
                    yield note
                for name in FIELDS[step]:
                    if name != "query" or not self.draft.node_id:
                        yield from self._field(name)
                if step != "Resources":
                    yield note
        with Horizontal(classes="buttons"):
            yield self._button("back", "‹ Back (esc)")
            yield self._button("next", "Next (⏎) ›")

    def _field(self, name: str) -> ComposeResult:
        label, hint = LABELS[name]
        with Horizontal(classes="field"):
            yield Static(line((label, "bold")), classes="label")
            yield Field(
                getattr(self.draft, name),
                name=name,
                entered=self.action_next,
                choices=CHOICES.get(name, ()),
                hides=HIDDEN.get(name, lambda _: False),
                suggester=PathSuggester(several=name == "inputs") if name in PICKED else None,
            )
            if name in PICKED:
                yield self._button(f"browse-{name}", "browse (^o)")
        yield Static(line((hint, "$muted")), id=f"problem-{name}", classes="problem")

    def _button(self, name: str, label: str) -> Button:
        button = Button(Content(label), id=f"wizard-{name}", compact=True)
        button.can_focus = False  # for the mouse; the keys need no way past it
        return button

    def on_mount(self) -> None:
        self._timer = self.set_timer(KEEP_AFTER, self._kept, pause=True)
        self._show()

    # -- what was typed

    def on_input_changed(self, event: Input.Changed) -> None:
        before = self.draft
        self._read()
        self._mark_step()
        self._note()
        if self.draft != before:
            self._unkept = True
            self._timer.stop()
            self._timer = self.set_timer(KEEP_AFTER, self._kept)

    def _kept(self) -> None:
        if self._unkept:
            self._unkept = False
            self._keep(self.draft)

    def on_unmount(self) -> None:
        self._kept()  # the app may be closed from here

    def _read(self) -> None:
        """Take over what the fields hold now; a change they tell of may still be on its way."""
        for field in self.query(Field):
            name = (field.id or "").removeprefix("field-")
            self.draft = self.draft.with_field(name, field.value)

    def _mark_step(self) -> None:
        """Below each field of this step: what is wrong, what is odd, or what goes in."""
        for name in self._shown(self.step):
            self._mark(name)

    def _mark(self, name: str) -> None:
        draft, node = self.draft, self._facts.node
        why = problem(draft, name, node)
        if why and not getattr(draft, name) and name not in self._insisted:
            why = ""  # nobody has been there yet
        if why:
            text = line((visible(f"✗ {why}"), "$error"))
        elif odd := warning(draft, name, node) if getattr(draft, name) else "":
            text = line((visible(f"! {odd}"), "$warning"))
        else:
            text = line((LABELS[name][1], "$muted"))
        self.query_one(f"#problem-{name}", Static).update(text)

    def _wrong(self, step: int) -> list[str]:
        """The fields that keep a step from being left."""
        node = self._facts.node
        return [name for name in self._shown(step) if problem(self.draft, name, node)]

    def _shown(self, step: int) -> list[str]:
        """The fields of a step; a job for one node asks for no other."""
        return [n for n in FIELDS[STEPS[step]] if n != "query" or not self.draft.node_id]

    # -- where we are

    def _show(self) -> None:
        current = STEPS[self.step]
        for number, step in enumerate(STEPS):
            self.query_one(f"#step-{step.lower()}").display = step == current
            tab = self.query_one(f"#tab-{step.lower()}", StepTab)
            tab.show(self.step, wrong=number < self.step and bool(self._wrong(number)))
        self._mark_step()
        self._note()
        shown = self.query_one(f"#step-{current.lower()}", VerticalScroll)
        fields = shown.query(Field)
        shown.can_focus = not fields  # so that its own keys scroll it
        first = next((f for f in fields if (f.id or "")[6:] in self._insisted), None)
        self.set_focus(first or (fields.first() if fields else shown))  # now: a key may be waiting
        last = current == STEPS[-1]
        self._label("back", "‹ Back (esc)" if self.step else "Close (esc)")
        self._label("next", "Get a quote (⏎) ›" if last else "Next (⏎) ›")
        back = "esc back" if self.step else "esc close"
        if last:
            ahead = "⏎ get a quote · y copy the command"
        else:
            ahead = "⏎ next · ^o browse" if set(PICKED) & set(self._shown(self.step)) else "⏎ next"
        self.foot((f"{ahead} · {back}", "$muted"))

    def _label(self, name: str, label: str) -> None:
        self.query_one(f"#wizard-{name}", Button).label = Content(label)

    def _note(self) -> None:
        step = STEPS[self.step]
        self.query_one(f"#note-{step.lower()}", Static).update(note(step, self._facts))

    # -- moving

    def go(self, number: int) -> None:
        """To another step; forward only as far as nothing is wrong."""
        self._read()
        for step in range(min(self.step, number), number):
            if wrong := self._wrong(step):
                self._insisted.update(wrong)
                number = step
                break
        self.step = number
        self._show()

    def action_next(self) -> None:
        if STEPS[self.step] != STEPS[-1]:
            self.go(self.step + 1)
            return
        wrong = next((number for number in range(len(STEPS)) if self._wrong(number)), None)
        if wrong is None:
            self._leave(buy=True)
        else:
            self._insisted.update(self._wrong(wrong))
            self.step = wrong
            self._show()

    def action_leave(self) -> None:
        self._read()
        if self.step:
            self.step -= 1
            self._show()
        else:
            self._leave(buy=False)

    def _leave(self, *, buy: bool) -> None:
        self._unkept = False
        self._keep(self.draft)
        self.dismiss((self.draft, buy))

    def action_fresh(self) -> None:
        """Empty fields, and the first step."""
        self._insisted.clear()
        self.query_one("#wizard-banner", Static).update("")
        fresh = replace(self._begin.fresh, node_id=self.draft.node_id)
        for field in self.query(Field):
            field.value = getattr(fresh, (field.id or "").removeprefix("field-"))
        self.draft = fresh
        self._unkept = True
        self.step = 0
        self._show()

    def action_page_down(self) -> None:
        self._step_scroll.scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        self._step_scroll.scroll_page_up(animate=False)

    @property
    def _step_scroll(self) -> VerticalScroll:
        return self.query_one(f"#step-{STEPS[self.step].lower()}", VerticalScroll)

    def action_copy(self) -> None:
        if STEPS[self.step] == STEPS[-1]:
            self.swarm.copy(self.draft.command_line(self._facts.usual_pay), "command")

    # -- files

    def action_browse(self, name: str = "") -> None:
        """Choose what a field names: the focused one, or the step's first that names files."""
        at = (self.focused.id or "").removeprefix("field-") if self.focused else ""
        here = [known for known in self._shown(self.step) if known in PICKED]
        name = name or (at if at in here else next(iter(here), ""))
        if not name:
            return
        from computeswarm.tui.modals.files import FilesModal

        self._read()
        marked = self._absolute("inputs") if name == "inputs" else ()
        at_now = self._absolute(name)
        folder = nearest_folder(at_now[-1] if at_now else ".")
        if name == "inputs" and at_now:
            folder = nearest_folder(str(Path(at_now[-1]).parent))
        picker = FilesModal(PICKED[name], folder, marked)  # type: ignore[arg-type]
        self.app.push_screen(picker, lambda chosen: self._chosen(name, chosen))

    def _absolute(self, name: str) -> tuple[str, ...]:
        """The paths that a field names now."""
        text = getattr(self.draft, name)
        try:
            paths = (
                [Path(w) for w in split(text)] if name == "inputs" else [Path(text)] * bool(text)
            )
            return tuple(str(path.expanduser().absolute()) for path in paths)
        except (BadRequest, RuntimeError):  # half a path: begin here
            return ()

    def _chosen(self, name: str, chosen: tuple[str, ...] | None) -> None:
        field = self.query_one(f"#field-{name}", Field)
        if chosen is not None:
            paths = [str(from_here(Path(path))) for path in chosen]
            field.value = join(paths) if name == "inputs" else paths[0]
            field.cursor_position = len(field.value)
        self.set_focus(field)

    # -- mouse

    @on(StepTab.Clicked)
    def _tab_clicked(self, event: StepTab.Clicked) -> None:
        self.go(event.number)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        name = (event.button.id or "").removeprefix("wizard-")
        if name == "next":
            self.action_next()
        elif name == "back":
            self.action_leave()
        else:
            self.action_browse(name.removeprefix("browse-"))
