"""What is wrong with the fields of a draft, and what is odd about them, as sentences.

A problem keeps a step from being left; a warning is only said. With a node the draft is held
against what that node's signed record says, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from computeswarm.core.durations import parse_duration
from computeswarm.core.errors import BadRequest
from computeswarm.core.jobs import MAX_INLINE_FILE_BYTES
from computeswarm.core.money import cost_atoms, parse_usdc
from computeswarm.tui.draft import CHOICES, JobDraft, local
from computeswarm.tui.format import duration, money
from computeswarm.tui.shell import split
from computeswarm.tui.views import NodeItem

HEAD = 4_096
"""Bytes of a script that are looked at to tell a text from a binary."""
_SECRET_WORDS = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL")


def problem(draft: JobDraft, name: str, node: NodeItem | None = None) -> str:
    """Why a field can't stay as it is; empty where it can."""
    try:
        if why := _CHECKS[name](draft):
            return why
        return _ON_NODE[name](draft, node) if node is not None and name in _ON_NODE else ""
    except OSError as error:
        return f"It can't be read: {error.strerror}."
    except (BadRequest, ValueError) as error:
        return str(error)


def warning(draft: JobDraft, name: str, node: NodeItem | None = None) -> str:
    """What a person should know about a field that has no problem."""
    try:
        return _ODD[name](draft, node) if name in _ODD else ""
    except (BadRequest, ValueError, OSError):
        return ""


# -- the fields by themselves


def _script(draft: JobDraft) -> str:
    if not draft.script.strip():
        return "Which script? Type the path of a file on this machine, or browse."
    path = local(draft.script)
    if path.is_dir():
        return "That is a folder; give the script inside it."
    if not path.exists():
        return "There is no such file."
    if not path.is_file():
        return "That is no ordinary file."
    size = path.stat().st_size
    if size > MAX_INLINE_FILE_BYTES:
        return "A script holds at most 256 KiB; give data as input files."
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head.strip():
        return "That file is empty."
    return "That is a binary, not a script." if b"\0" in head else ""


def _args(draft: JobDraft) -> str:
    split(draft.args)
    return ""


def _query(draft: JobDraft) -> str:
    if draft.query.strip():
        from computeswarm.core.query import parse  # brings the models, not needed for a first frame

        parse(draft.query)
    return ""


def _gpus(draft: JobDraft) -> str:
    text = draft.gpus.strip()
    return "" if text.isascii() and text.isdigit() and int(text) <= 64 else "A number from 0 to 64."


def _time(draft: JobDraft) -> str:
    parse_duration(draft.max_time)
    return ""


def _image(draft: JobDraft) -> str:
    good = re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", draft.image)
    return "" if good else "The name of an image from the seller's list, such as python."


def _internet(draft: JobDraft) -> str:
    return "" if draft.internet.strip() in CHOICES["internet"] else "Either yes or no."


def _inputs(draft: JobDraft) -> str:
    for path in draft.input_paths:
        if not path.exists():
            return f"{path} does not exist."
        if not os.access(path, os.R_OK):
            return f"{path} can't be read by you."
    return ""


def _env(draft: JobDraft) -> str:
    for part in split(draft.env):
        name, equals, _ = part.partition("=")
        if not equals or not name.isidentifier() or not name.isascii():
            return f"{part[:40]!r} is not of the form NAME=value."
    return ""


def _secrets(draft: JobDraft) -> str:
    parts = [part.partition("=") for part in split(draft.secrets)]
    names = [name for name, _, _ in parts]
    for name, equals, rest in parts:
        if equals and not rest.startswith("@"):
            return "Only names here; values go into the field below, where they stay hidden."
        if not name.isascii() or not name.isidentifier():
            return "Names of variables, or NAME=@FILE, separated by spaces."
        if equals and not local(rest[1:]).is_file():
            return f"There is no such file for {name}."
        if names.count(name) > 1 or name in draft.environment:
            return f"{name} is there twice."
    return ""


def _secret_values(draft: JobDraft) -> str:
    wanted, given = draft.typed_secrets, split(draft.secret_values)
    if len(wanted) == len(given):
        return ""
    if not wanted:
        return "Name the secrets first, in the field above."
    return f"As many values as are missing: {len(wanted)}, for {', '.join(wanted)}."


def _output(draft: JobDraft) -> str:
    path = local(draft.output) if draft.output else None
    if path is not None and path.exists() and not path.is_dir():
        return "That is a file; give a folder, which is made if it isn't there."
    return ""


def _budget(draft: JobDraft) -> str:
    return "" if parse_usdc(draft.budget) > 0 else "A budget is more than nothing."


def _pay(draft: JobDraft) -> str:
    return "" if draft.pay.strip() in CHOICES["pay"] else "Either slices or channel."


_CHECKS: dict[str, Callable[[JobDraft], str]] = {
    "script": _script,
    "args": _args,
    "query": _query,
    "gpus": _gpus,
    "max_time": _time,
    "image": _image,
    "internet": _internet,
    "inputs": _inputs,
    "env": _env,
    "secrets": _secrets,
    "secret_values": _secret_values,
    "output": _output,
    "budget": _budget,
    "pay": _pay,
}

# -- against the node that is to run it


def _too_many_gpus(draft: JobDraft, node: NodeItem) -> str:
    if int(draft.gpus) <= node.gpu_count:
        return ""
    has = f"has {node.gpu_count}" if node.gpu_count else "has no GPU; give 0"
    return f"More than {node.name} can give: it {has}."


def _too_long(draft: JobDraft, node: NodeItem) -> str:
    most = node.max_job_seconds
    if not most or draft.max_seconds <= most:
        return ""
    return f"{node.name} takes jobs of at most {duration(most)}."


def _no_internet(draft: JobDraft, node: NodeItem) -> str:
    return f"{node.name} lets no job reach it." if draft.network and not node.network else ""


def _under_a_slice(draft: JobDraft, node: NodeItem) -> str:
    if draft.by_channel:  # its slices are a few seconds, and the quote says how many
        return ""
    first = cost_atoms(rate(draft, node), min(node.slice_seconds, draft.max_seconds))
    return f"Not even the first slice: {money(first)} USDC." if draft.budget_atoms < first else ""


def rate(draft: JobDraft, node: NodeItem) -> int:
    """Atoms an hour of the whole job by the node's list."""
    return node.price * max(1, int(draft.gpus or 0))


_ON_NODE: dict[str, Callable[[JobDraft, NodeItem], str]] = {
    "gpus": _too_many_gpus,
    "max_time": _too_long,
    "internet": _no_internet,
    "budget": _under_a_slice,
}

# -- what is odd, and may be meant


def _odd_script(draft: JobDraft, _: NodeItem | None) -> str:
    kind = Path(draft.script).suffix.lower()
    return "" if kind in (".py", ".sh") else "Neither .py nor .sh: it is run by bash."


def _odd_image(draft: JobDraft, node: NodeItem | None) -> str:
    if node is None or not node.images or draft.image in node.images:
        return ""
    return f"{node.name} lists no such image; it has {', '.join(node.images[:8])}."


def _odd_env(draft: JobDraft, _: NodeItem | None) -> str:
    for name in draft.environment:
        if _SECRET_WORDS.search(name.upper()):
            return f"Is {name} a secret? Everybody on this machine may see it; name it below."
    return ""


def _odd_output(draft: JobDraft, _: NodeItem | None) -> str:
    if draft.output and local(draft.output).is_dir() and any(local(draft.output).iterdir()):
        return "There is something in it; you are asked before a file is overwritten."
    return ""


def _odd_budget(draft: JobDraft, node: NodeItem | None) -> str:
    if node is None:
        return ""
    full = cost_atoms(rate(draft, node), draft.max_seconds)
    enough = draft.budget_atoms >= full
    return "" if enough else f"Less than the time limit costs: {money(full)} USDC."


_ODD: dict[str, Callable[[JobDraft, NodeItem | None], str]] = {
    "script": _odd_script,
    "image": _odd_image,
    "env": _odd_env,
    "output": _odd_output,
    "budget": _odd_budget,
}
