"""A job as a person is writing it: what the fields hold, what is wrong, the command line for it."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from computeswarm.core.durations import parse_duration
from computeswarm.core.errors import BadRequest
from computeswarm.core.money import parse_usdc

STEPS = ("Script", "Resources", "Data", "Access", "Budget", "Review")
FIELDS = {
    "Script": ("script", "args"),
    "Resources": ("query", "gpus", "max_time", "image"),
    "Data": ("inputs", "env", "output"),
    "Access": ("internet", "secrets", "secret_values"),
    "Budget": ("budget", "pay"),
    "Review": (),
}

CHOICES = {"pay": ("slices", "channel"), "internet": ("no", "yes")}
"""Fields that take one of a few words."""
HIDDEN = {
    "secrets": lambda text: bool(re.search(r"=(?!@)", text)),  # a value, in the wrong place
    "secret_values": bool,
}
"""Fields whose text is not drawn where this says so."""


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
    internet: str = "no"
    secrets: str = ""
    secret_values: str = field(default="", repr=False)
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
    def network(self) -> bool:
        """Whether the job is to reach the internet."""
        return self.internet.strip() == "yes"

    @property
    def secret_files(self) -> dict[str, str]:
        """The names of the secrets, each with the file it comes from, if any."""
        parts = (part.partition("=") for part in _split(self.secrets))
        # a value that stands there by mistake is none of this: it is not to be shown
        return {name: rest[1:] if rest.startswith("@") else "" for name, _, rest in parts}

    @property
    def typed_secrets(self) -> tuple[str, ...]:
        """Those that neither a file nor the environment holds: their values have to be typed."""
        return tuple(n for n, f in self.secret_files.items() if not f and n not in os.environ)

    def secret_map(self) -> dict[str, str]:
        """The secrets with their values; reads files.

        Raises:
            BadRequest: a value is missing, or is none.
        """
        from computeswarm.buyer.secrets import secret_of_file

        if why := self.problem("secrets") or self.problem("secret_values"):
            raise BadRequest(why)
        typed = dict(zip(self.typed_secrets, _split(self.secret_values), strict=True))
        return {
            name: secret_of_file(name, Path(file)) if file else typed.get(name) or os.environ[name]
            for name, file in self.secret_files.items()
        }

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
        for name, file in self.secret_files.items():
            words += ["--secret", f"{name}=@{file}" if file else name]
        if self.network:
            words.append("--internet")
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


def _check_internet(draft: JobDraft) -> str:
    return "" if draft.internet.strip() in CHOICES["internet"] else "Either yes or no."


def _check_secrets(draft: JobDraft) -> str:
    parts = [part.partition("=") for part in _split(draft.secrets)]
    names = [name for name, _, _ in parts]
    for name, equals, rest in parts:
        if equals and not rest.startswith("@"):
            return "Only names here; values go into the field below, where they stay hidden."
        if not name.isascii() or not name.isidentifier():
            return "Names of variables, or NAME=@FILE, separated by spaces."
        if equals and not Path(rest[1:]).expanduser().is_file():
            return f"There is no such file for {name}."
        if names.count(name) > 1 or name in draft.environment:
            return f"{name} is there twice."
    return ""


def _check_secret_values(draft: JobDraft) -> str:
    wanted, given = draft.typed_secrets, _split(draft.secret_values)
    if len(wanted) == len(given):
        return ""
    if not wanted:
        return "Name the secrets first, in the field above."
    return f"As many values as are missing: {len(wanted)}, for {', '.join(wanted)}."


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
    "internet": _check_internet,
    "secrets": _check_secrets,
    "secret_values": _check_secret_values,
    "env": _check_env,
    "budget": _check_budget,
}
