"""What each step of the wizard says beside its fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from textual.content import Content

from computeswarm.core.errors import BadRequest
from computeswarm.core.money import cost_atoms, seconds_bought
from computeswarm.core.states import JobState
from computeswarm.core.text import clean, visible
from computeswarm.tui import draft_checks
from computeswarm.tui.draft import JobDraft, local
from computeswarm.tui.format import duration, file_size, money, price
from computeswarm.tui.views import JobItem, NodeItem
from computeswarm.tui.widgets.pane import line, lines

LABELS = {
    "script": ("Script", "a file on this machine; runs as  python SCRIPT ARGS"),
    "args": ("Arguments", "what stands after the script"),
    "query": ("Nodes", "which may run it, in the filter's language; empty is any"),
    "gpus": ("GPUs", "how many; 0 runs on the processor"),
    "max_time": ("Time limit", "10m, 90s, 1h30m; then it is stopped"),
    "image": ("Image", "an environment the seller has"),
    "internet": ("Internet", "↑↓  yes: the job reaches it, where the node lets jobs"),
    "inputs": ("Input files", "paths, separated by spaces; the job finds them beside it"),
    "env": ("Environment", "NAME=value, separated by spaces"),
    "secrets": ("Secrets", "names of variables, or NAME=@FILE, separated by spaces"),
    "secret_values": ("Values", "of those your environment lacks; never shown"),
    "output": ("Outputs to", "the folder into which d downloads what it wrote"),
    "budget": ("Budget", "USDC; no more is ever paid for this job"),
    "pay": ("Paid by", "↑↓  slices (a transfer each) or channel (one deposit)"),
}
"""Each field's name, and a hint that stands under it until there is something else to say."""
PREVIEW = 8
_PAID_BY = {False: "by slices, a transfer each", True: "by a channel: one deposit, then vouchers"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the notes are made of."""

    draft: JobDraft
    node: NodeItem | None = None
    history: Sequence[JobItem] = ()
    """The buyer's jobs: how long the same script took before."""
    usual_pay: str = "slices"


def note(step: str, facts: Facts) -> Content:
    """The text of a step; empty where a field's problem says more."""
    try:
        return _NOTES[step](facts)
    except (BadRequest, ValueError, OSError):
        return line("")


def rate(facts: Facts) -> int:
    """Atoms an hour of the whole job by the node's list; 0 without a node."""
    return draft_checks.rate(facts.draft, facts.node) if facts.node else 0


def expected(facts: Facts) -> tuple[int, float] | None:
    """Cost and seconds if it takes as long as before; None where it never ran to its end."""
    before = [
        job.metered_ms / 1000
        for job in facts.history
        if job.name == facts.draft.name and job.state is JobState.SUCCEEDED and job.metered_ms
    ]
    if not before or facts.node is None:
        return None
    seconds = min(median(before), float(facts.draft.max_seconds))
    return cost_atoms(rate(facts), seconds), seconds


def most(facts: Facts) -> int:
    """Atoms that are paid at most, as far as that is known before the quote."""
    budget = facts.draft.budget_atoms
    full = cost_atoms(rate(facts), facts.draft.max_seconds)
    return min(budget, full) if facts.node else budget


def _script(facts: Facts) -> Content:
    path = local(facts.draft.script)
    if not path.is_file():
        return line("")
    with path.open("rb") as file:
        head = file.read(8_192)
    if b"\0" in head:
        return line("")
    shown = clean(head.decode("utf-8", "replace"), line_limit=200).split("\n")[:PREVIEW]
    rows = [line((f"✓ {file_size(path.stat().st_size)}", "$success"))]
    rows += [line((f"{n:>3} ", "$faint"), (text, "$muted")) for n, text in enumerate(shown, 1)]
    return lines(*rows)


def _resources(facts: Facts) -> Content:
    node = facts.node
    if node is None:
        if facts.draft.node_id:
            return line(("On  ", "$muted"), (facts.draft.node_id, "bold"), " · not in the list now")
        return line(("The cheapest node that fits is asked for a quote.", "$muted"))
    unit = "GPU and hour" if node.gpu_count else "hour"
    images = ", ".join(node.images[:8]) or "none said"
    return lines(
        line(("On  ", "$muted"), (node.name, "bold"), f" · {node.title}"),
        line((f"    {price(node.price)} USDC per {unit} · at most "
              f"{duration(node.max_job_seconds)} · images: {images}", "$muted")),
    )  # fmt: skip


def _data(facts: Facts) -> Content:
    from computeswarm.buyer.secrets import READABLE

    paths = facts.draft.input_paths
    total = sum(path.stat().st_size for path in paths if path.is_file())
    count = "1 input" if len(paths) == 1 else f"{len(paths)} inputs"
    rows = [line((f"✓ {count}, {file_size(total)}; uploaded when the job is paid", "$success"))]
    if not paths:
        rows = [line(("No input files.", "$muted"))]
    files = facts.draft.secret_files
    if files and not facts.draft.problem("secrets"):
        typed = facts.draft.typed_secrets
        where = [
            f"{name} from {file or ('the field above' if name in typed else 'your environment')}"
            for name, file in files.items()
        ]
        rows.append(line(("✓ ", "$success"), (visible(" · ".join(where)), "$muted")))
        rows.append(line((f"! {READABLE}", "$warning")))
    return lines(*rows)


def _budget(facts: Facts) -> Content:
    draft, node = facts.draft, facts.node
    budget = draft.budget_atoms
    if node is None:
        return line(("The quote says how long that lasts.", "$muted"))
    full = cost_atoms(rate(facts), draft.max_seconds)
    seconds = min(seconds_bought(rate(facts), budget), float(draft.max_seconds))
    ahead = cost_atoms(rate(facts), min(node.slice_seconds, draft.max_seconds))
    paid = line(("Paid ahead, a slice at a time: ", "$muted"), (f"{money(ahead)} USDC", "bold"))
    if draft.by_channel:
        paid = line(
            ("Locked until the job ends: ", "$muted"),
            (f"{money(min(budget, full))} USDC", "bold"),
            ("; paid ahead, some seconds at a time", "$muted"),
        )
    return lines(
        line(f"Lasts {duration(seconds)} of {duration(draft.max_seconds)}",
             ("" if budget >= full else "; then it stops, outputs kept", "$warning")),
        line((f"The time limit costs {money(full)} USDC at {price(rate(facts))} an hour.",
              "$muted")),
        paid,
        *_expected(facts),
    )  # fmt: skip


def _review(facts: Facts) -> Content:
    draft = facts.draft
    where = facts.node.name if facts.node else draft.node_id or draft.query or "the cheapest node"
    gpus = f"{int(draft.gpus)} GPU" if int(draft.gpus or 0) else "no GPU"
    rows = [
        _row("Run", (visible(f"{draft.name} {draft.args}".strip()), "bold")),
        _row("On", visible(f"{where} · {gpus} · image {draft.image}")),
        _row("Limits", f"{duration(draft.max_seconds)} · {money(draft.budget_atoms)} USDC"),
        _row("Inputs", visible(draft.inputs) or "none"),
    ]
    if draft.env:
        rows.append(_row("Variables", visible(draft.env)))
    if draft.network:
        rows.append(_row("Access", "the internet"))
    if files := draft.secret_files:
        rows.append(_row("Secrets", ", ".join(files), (" · the seller reads them", "$warning")))
    if draft.output:
        rows.append(_row("Outputs", f"to {visible(draft.output)}"))
    rows += [
        _row("Paid", _PAID_BY[draft.by_channel]),
        *_expected(facts),
        _row("At most", (f"{money(most(facts))} USDC", "bold $primary"), f"  {_why_most(facts)}"),
        line(""),
        line(("The same from a shell:", "$muted")),
        line((draft.command_line(facts.usual_pay), "$secondary")),
        line(""),
        line(("Nothing is paid yet: the quote comes first.", "$muted")),
    ]
    return lines(*rows)


def _expected(facts: Facts) -> list[Content]:
    if (found := expected(facts)) is None:
        return []
    cost, seconds = found
    like = f"  for {duration(seconds)}, as it took before"
    return [_row("Expected", (f"{money(min(cost, most(facts)))} USDC", "bold"), (like, "$muted"))]


def _why_most(facts: Facts) -> str:
    if facts.node is None:
        return "your budget; the quote says more"
    return "your budget" if most(facts) == facts.draft.budget_atoms else "to the time limit"


def _row(name: str, *parts: tuple[str, str] | str) -> Content:
    return line((f"{name:<10}", "$muted"), *parts)


_NOTES: dict[str, Callable[[Facts], Content]] = {
    "Script": _script,
    "Resources": _resources,
    "Data": _data,
    "Budget": _budget,
    "Review": _review,
}
