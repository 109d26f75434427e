"""A job as a person is writing it: what the fields hold, what is wrong, the command line for it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from computeswarm.core.durations import parse_duration
from computeswarm.core.errors import BadRequest
from computeswarm.core.money import parse_usdc

STEPS = ("Script", "Resources", "Data", "Budget", "Review")
FIELDS = {
    "Script": ("script", "args"),
    "Resources": ("query", "gpus", "max_time", "image"),
    "Data": ("inputs", "env", "output"),
    "Budget": ("budget", "pay"),
    "Review": (),
}

CHOICES = {"pay": ("slices", "channel")}
"""Fields that take one of a few words."""


@dataclass(frozen=True, slots=True)
class ExampleJob:
    """A job that is offered to a newcomer, ready to be bought."""

    script: Path
    inputs: tuple[Path, ...] = ()
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobDraft:
    """The wizard's fields as typed. ``node_id`` is set when the job is for one node."""

    script: str = ""
    args: str = ""
    query: str = ""
    gpus: str = "0"
    max_time: str = "10m"
    image: str = "python"
    inputs: str = ""
    env: str = ""
    output: str = ""
    budget: str = "0.50"
    pay: str = "slices"
    node_id: str = ""

    @classmethod
    def from_example(cls, example: ExampleJob) -> JobDraft:
        """The draft that runs an example as it is."""
        return cls(
            script=_from_here(example.script),
            args=shlex.join(example.args),
            inputs=shlex.join(map(_from_here, example.inputs)),
        )

    def with_field(self, name: str, text: str) -> JobDraft:
        """The draft with one field retyped."""
        return replace(self, **{name: text})

    @property
    def input_paths(self) -> tuple[Path, ...]:
        return tuple(Path(part).expanduser() for part in _split(self.inputs))

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(_split(self.args))

    @property
    def environment(self) -> dict[str, str]:
        return dict(part.split("=", 1) for part in _split(self.env))

    @property
    def max_seconds(self) -> int:
        return parse_duration(self.max_time)

    @property
    def budget_atoms(self) -> int:
        return parse_usdc(self.budget)

    @property
    def by_channel(self) -> bool:
        """Whether it is paid by vouchers on a deposit."""
        return self.pay.strip() == "channel"

    @property
    def name(self) -> str:
        return Path(self.script).name

    def problem(self, name: str) -> str:
        """What is wrong with a field, as a sentence; empty when nothing is."""
        try:
            return _CHECKS[name](self) if name in _CHECKS else ""
        except (BadRequest, ValueError) as error:
            return str(error)

    def step_problems(self, step: str) -> list[tuple[str, str]]:
        """The fields of a step that keep it from being left, with why."""
        found = ((name, self.problem(name)) for name in FIELDS[step])
        return [(name, why) for name, why in found if why]

    @property
    def complete(self) -> bool:
        """Whether it could be bought as it is."""
        return not any(self.step_problems(step) for step in STEPS)

    def command_line(self) -> str:
        """The exact ``computeswarm run`` that buys the same job."""
        words = ["computeswarm", "run", self.script]
        if self.node_id:
            words += ["--node", self.node_id]
        elif self.query:
            words += ["--gpu", self.query]
        words += ["--gpus", self.gpus or "0"]  # left out it would be one where the node has any
        if self.image and self.image != "python":
            words += ["--image", self.image]
        words += ["--budget", self.budget, "--max-time", self.max_time]
        if self.by_channel:
            words += ["--pay", "channel"]
        for path in _split(self.inputs):
            words += ["--input", path]
        for pair in _split(self.env):
            words += ["--env", pair]
        if self.output:
            words += ["--output", self.output]
        if self.args:
            words += ["--", *_split(self.args)]
        return shlex.join(words)


def _from_here(path: Path) -> str:
    """The path as a person in this folder would type it."""
    full, here = path.absolute(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else path)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise BadRequest("A quotation mark is not closed.") from None


def _check_script(draft: JobDraft) -> str:
    if not draft.script.strip():
        return "Which script? Type the path of a file on this machine."
    path = Path(draft.script).expanduser()
    if path.is_dir():
        return "That is a folder; give the script inside it."
    return "" if path.is_file() else "There is no such file."


def _check_gpus(draft: JobDraft) -> str:
    text = draft.gpus.strip()
    return "" if text.isascii() and text.isdigit() and int(text) <= 64 else "A number from 0 to 64."


def _check_query(draft: JobDraft) -> str:
    if draft.query.strip():
        from computeswarm.core.query import parse  # brings the models, not needed for a first frame

        parse(draft.query)
    return ""


def _check_inputs(draft: JobDraft) -> str:
    for path in draft.input_paths:
        if not path.exists():
            return f"{path} does not exist."
    return ""


def _check_env(draft: JobDraft) -> str:
    for part in _split(draft.env):
        name, equals, _ = part.partition("=")
        if not equals or not name.isidentifier() or not name.isascii():
            return f"{part[:40]!r} is not of the form NAME=value."
    return ""


def _check_args(draft: JobDraft) -> str:
    _split(draft.args)
    return ""


def _check_time(draft: JobDraft) -> str:
    parse_duration(draft.max_time)
    return ""


def _check_budget(draft: JobDraft) -> str:
    return "" if parse_usdc(draft.budget) > 0 else "A budget is more than nothing."


def _check_pay(draft: JobDraft) -> str:
    return "" if draft.pay.strip() in CHOICES["pay"] else "Either slices or channel."


def _check_image(draft: JobDraft) -> str:
    good = re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", draft.image)
    return "" if good else "The name of an image from the seller's list, such as python."


_CHECKS = {
    "script": _check_script,
    "args": _check_args,
    "query": _check_query,
    "gpus": _check_gpus,
    "max_time": _check_time,
    "image": _check_image,
    "pay": _check_pay,
    "inputs": _check_inputs,
    "env": _check_env,
    "budget": _check_budget,
}
