"""A new job in six steps, from Script to Review. Enter goes on, escape back."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from computeswarm.core.errors import BadRequest
from computeswarm.core.money import cost_atoms, seconds_bought
from computeswarm.tui.draft import CHOICES, FIELDS, HIDDEN, STEPS, JobDraft
from computeswarm.tui.format import duration, file_size, money, price
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import NodeItem
from computeswarm.tui.widgets.field import Field
from computeswarm.tui.widgets.pane import line, lines

LABELS = {
    "script": ("Script", "a file on this machine; runs as  python SCRIPT ARGS"),
    "args": ("Arguments", "what stands after the script"),
    "query": ("Nodes", "which nodes may run it, in the filter's language; empty is any"),
    "gpus": ("GPUs", "how many; 0 runs on the processor"),
    "max_time": ("Time limit", "10m, 90s, 1h30m"),
    "image": ("Image", "an environment the seller has"),
    "inputs": ("Input files", "paths, separated by spaces; the job finds them beside it"),
    "env": ("Environment", "NAME=value, separated by spaces"),
    "output": ("Outputs to", "the folder into which d downloads what it wrote"),
    "internet": ("Internet", "↑↓  yes: the job reaches it, where the node lets jobs"),
    "secrets": ("Secrets", "names of variables, or NAME=@FILE, separated by spaces"),
    "secret_values": ("Values", "of those your environment lacks; never shown"),
    "budget": ("Budget", "USDC; no more is ever paid for this job"),
    "pay": ("Paid by", "↑↓  slices (a transfer each) or channel (one deposit)"),
}
PREVIEW = 8
_PAID_BY = {False: "by slices, a transfer each", True: "by a channel: one deposit, then vouchers"}


class WizardModal(Dialog[tuple[JobDraft, bool]]):
    """Dismissed with the draft and whether to buy; the draft is kept when it is left."""

    SPENDS = True

    BINDINGS: ClassVar = [
        Binding("escape", "leave", "back", show=False, id="wizard.back"),
        Binding("enter", "next", "next", show=False, id="wizard.next"),
    ]

    def __init__(self, draft: JobDraft, node: NodeItem | None, step: str = STEPS[0]) -> None:
        super().__init__("New job")
        self.draft, self._node = draft, node
        self.step = STEPS.index(step)

    def content(self) -> ComposeResult:
        yield Static(id="wizard-steps", markup=False)
        for step in STEPS:
            with Container(id=f"step-{step.lower()}", classes="step"):
                for name in FIELDS[step]:
                    if name == "query" and self._node is not None:
                        continue
                    label, hint = LABELS[name]
                    with Vertical(classes="field"):
                        yield Static(line((f"{label}  ", "bold"), (hint, "$muted")))
                        value = getattr(self.draft, name)
                        yield Field(
                            value,
                            name=name,
                            entered=self.action_next,
                            choices=CHOICES.get(name, ()),
                            hides=HIDDEN.get(name, lambda _: False),
                        )
                        yield Static("", id=f"problem-{name}", classes="problem", markup=False)
                yield Static("", id=f"note-{step.lower()}", classes="note", markup=False)

    def on_mount(self) -> None:
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._read()
        self._mark((event.input.id or "").removeprefix("field-"))
        self._note()

    def _read(self) -> None:
        """Take over what the fields hold now; a change they tell of may still be on its way."""
        for field in self.query(Field):
            name = (field.id or "").removeprefix("field-")
            self.draft = self.draft.with_field(name, field.value)

    def _mark(self, name: str) -> bool:
        why = self.draft.problem(name)
        self.query_one(f"#problem-{name}", Static).update(
            line((f"✗ {why}", "$error")) if why else line("")
        )
        return not why

    def _show(self) -> None:
        current = STEPS[self.step]
        for step in STEPS:
            self.query_one(f"#step-{step.lower()}").display = step == current
        self.query_one("#wizard-steps", Static).update(self._trail())
        self._note()
        fields = self.query(f"#step-{current.lower()} Input")
        self.set_focus(fields.first() if fields else None)  # now: a key may be waiting already
        back = "esc back" if self.step else "esc close"
        ahead = "⏎ get a quote · y copy the command" if current == "Review" else "⏎ next"
        self.foot((f"{ahead} · {back}", "$muted"))

    def _trail(self) -> Content:
        parts: list[tuple[str, str] | str] = []
        for number, step in enumerate(STEPS):
            done = number < self.step
            mark = "✓" if done else str(number + 1)
            style = "bold $primary" if number == self.step else "$success" if done else "$faint"
            parts += [(f"{mark} {step}", style), (" › ", "$faint")]
        return line(*parts[:-1])

    # -- what each step says under its fields

    def _note(self) -> None:
        step = STEPS[self.step]
        note = self.query_one(f"#note-{step.lower()}", Static)
        try:
            note.update(getattr(self, f"_note_{step.lower()}")())
        except (BadRequest, ValueError, OSError):
            note.update(line(""))  # the field itself says what is wrong

    def _note_script(self) -> Content:
        from pathlib import Path

        from computeswarm.core.text import clean

        path = Path(self.draft.script).expanduser()
        if not path.is_file():
            return line("")
        with path.open("rb") as file:
            head = file.read(8_192)
        shown = clean(head.decode("utf-8", "replace"), line_limit=200).split("\n")[:PREVIEW]
        rows = [line((f"✓ {file_size(path.stat().st_size)}", "$success"))]
        rows += [line((f"{n:>3} ", "$faint"), (text, "$muted")) for n, text in enumerate(shown, 1)]
        return lines(*rows)

    def _note_resources(self) -> Content:
        node = self._node
        if node is None:
            return line(("The cheapest node that fits is asked for a quote.", "$muted"))
        unit = "GPU and hour" if node.gpu_count else "hour"
        return lines(
            line(("On  ", "$muted"), (node.name, "bold"), f" · {node.title}"),
            line((f"    {price(node.price)} USDC per {unit} · at most ", "$muted"),
                 (duration(node.max_job_seconds), "$muted")),
            line((f"    images: {', '.join(node.images[:8]) or 'none said'}", "$muted")),
        )  # fmt: skip

    def _note_data(self) -> Content:
        paths = self.draft.input_paths
        if not paths:
            return line(("No input files.", "$muted"))
        total = sum(path.stat().st_size for path in paths if path.is_file())
        return lines(
            line((f"✓ {len(paths)} inputs, {file_size(total)}", "$success")),
            line(("They are uploaded when the job is paid, each checked by its digest.", "$muted")),
        )

    def _note_access(self) -> Content:
        from computeswarm.buyer.secrets import READABLE

        draft = self.draft
        if draft.problem("secrets"):
            return line("")
        files = draft.secret_files
        if not files:
            return line(("No secrets: the job gets what the steps before hold.", "$muted"))
        typed = draft.typed_secrets
        where = [
            f"{name} from {file or ('the field above' if name in typed else 'your environment')}"
            for name, file in files.items()
        ]
        return lines(
            line(("✓ ", "$success"), (" · ".join(where), "$muted")),
            line((READABLE, "$warning")),
        )

    def _note_budget(self) -> Content:
        budget, node = self.draft.budget_atoms, self._node
        if node is None:
            return line(("The quote says how long that lasts.", "$muted"))
        rate = node.price * max(1, int(self.draft.gpus or 0))
        seconds = min(seconds_bought(rate, budget), float(self.draft.max_seconds))
        full = cost_atoms(rate, self.draft.max_seconds)
        ahead = cost_atoms(rate, min(node.slice_seconds, self.draft.max_seconds))
        enough = budget >= full
        paid = line(("Paid ahead, a slice at a time: ", "$muted"), (f"{money(ahead)} USDC", "bold"))
        if self.draft.by_channel:
            paid = line(
                ("Locked until the job ends: ", "$muted"),
                (f"{money(min(budget, full))} USDC", "bold"),
                ("; paid ahead, some seconds at a time", "$muted"),
            )
        return lines(
            line(f"Lasts {duration(seconds)} of {duration(self.draft.max_seconds)}",
                 ("" if enough else "; then it stops, outputs kept", "$warning")),
            line((f"The time limit costs {money(full)} USDC at {price(rate)} an hour.", "$muted")),
            paid,
        )  # fmt: skip

    def _note_review(self) -> Content:
        draft = self.draft
        where = self._node.name if self._node else draft.query or "the cheapest node"
        gpus = f"{draft.gpus} GPU" if int(draft.gpus or 0) else "no GPU"
        return lines(
            line(("Run     ", "$muted"), (f"{draft.name} {draft.args}".strip(), "bold")),
            line(("On      ", "$muted"), f"{where} · {gpus} · image {draft.image}"),
            line(("Limits  ", "$muted"), f"{duration(draft.max_seconds)} · {draft.budget} USDC"),
            line(("Inputs  ", "$muted"), draft.inputs or "none"),
            *self._access(),
            line(("Paid    ", "$muted"), _PAID_BY[draft.by_channel]),
            line(""),
            line(("The same from a shell:", "$muted")),
            line((draft.command_line(), "$secondary")),
            line(""),
            line(("Nothing is paid yet: the quote comes first.", "$muted")),
        )

    def _access(self) -> list[Content]:
        draft, rows = self.draft, []
        if draft.network:
            rows.append(line(("Access  ", "$muted"), "the internet"))
        if draft.secret_files:
            names = ", ".join(draft.secret_files)
            rows.append(
                line(("Secrets ", "$muted"), names, (" · the seller reads them", "$warning"))
            )
        return rows

    # -- moving

    def action_next(self) -> None:
        self._read()
        step = STEPS[self.step]
        bad = [name for name, _ in self.draft.step_problems(step) if self._has(name)]
        for name in FIELDS[step]:
            if self._has(name):
                self._mark(name)
        if bad:
            self.set_focus(self.query_one(f"#field-{bad[0]}"))
        elif step == "Review":
            self.dismiss((self.draft, True))
        else:
            self.step += 1
            self._show()

    def _has(self, name: str) -> bool:
        return bool(self.query(f"#field-{name}"))

    def action_leave(self) -> None:
        self._read()
        if self.step == 0:
            self.dismiss((self.draft, False))
        else:
            self.step -= 1
            self._show()

    def key_y(self) -> None:
        if STEPS[self.step] == "Review":
            self.swarm.copy(self.draft.command_line(), "command")
