"""A job as a person is writing it: what the fields hold, what is wrong, the command line for it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from computeswarm.core.durations import parse_duration
from computeswarm.core.errors import BadRequest
from computeswarm.core.money import parse_usdc
from computeswarm.tui.shell import join, option, quote, split

STEPS = ("Script", "Resources", "Data", "Budget", "Review")
FIELDS = {
    "Script": ("script", "args"),
    "Resources": ("query", "gpus", "max_time", "image", "internet"),
    "Data": ("inputs", "env", "secrets", "secret_values", "output"),
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
            script=from_here(example.script),
            args=join(list(example.args)),
            inputs=join([from_here(path) for path in example.inputs]),
        )

    def with_field(self, name: str, text: str) -> JobDraft:
        """The draft with one field retyped."""
        return replace(self, **{name: text})

    @property
    def input_paths(self) -> tuple[Path, ...]:
        return tuple(local(part) for part in split(self.inputs))

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(split(self.args))

    @property
    def environment(self) -> dict[str, str]:
        return dict(part.split("=", 1) for part in split(self.env))

    @property
    def network(self) -> bool:
        """Whether the job is to reach the internet."""
        return self.internet.strip() == "yes"

    @property
    def secret_files(self) -> dict[str, str]:
        """The names of the secrets, each with the file it comes from, if any."""
        parts = (part.partition("=") for part in split(self.secrets))
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
        typed = dict(zip(self.typed_secrets, split(self.secret_values), strict=True))
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
        from computeswarm.tui.draft_checks import problem  # it reads drafts, too

        return problem(self, name)

    def step_problems(self, step: str) -> list[tuple[str, str]]:
        """The fields of a step that keep it from being left, with why."""
        found = ((name, self.problem(name)) for name in FIELDS[step])
        return [(name, why) for name, why in found if why]

    @property
    def complete(self) -> bool:
        """Whether it could be bought as it is."""
        return not any(self.step_problems(step) for step in STEPS)

    def command_line(self, usual_pay: str = "slices") -> str:
        """The exact ``computeswarm run`` that buys the same job.

        ``usual_pay`` is how jobs are paid where nothing is said.
        """
        # a name that begins with a dash would be read as an option
        script = f"./{self.script}" if self.script.startswith("-") else self.script
        words = ["computeswarm", "run", script]
        if self.node_id:
            words += option("--node", self.node_id)
        elif self.query.strip():
            words += option("--gpu", self.query)
        words += ["--gpus", self.gpus or "0"]  # left out it would be one where the node has any
        if self.image and self.image != "python":
            words += ["--image", self.image]
        words += [*option("--budget", self.budget), "--max-time", self.max_time]
        if self.pay.strip() != usual_pay:
            words += ["--pay", self.pay.strip()]
        for path in split(self.inputs):
            words += option("--input", path)
        for pair in split(self.env):
            words += option("--env", pair)
        for name, file in self.secret_files.items():
            words += ["--secret", f"{name}=@{file}" if file else name]
        if self.network:
            words.append("--internet")
        if self.output:
            words += option("--output", self.output)
        if arguments := split(self.args):
            words += ["--", *arguments]
        return " ".join(map(quote, words))


def local(text: str) -> Path:
    """A path on this machine as typed, with its ``~``.

    Raises:
        BadRequest: nobody's home is called that.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BadRequest(
            f"There is no user {text.split('/')[0][1:40]!r} on this machine."
        ) from None


def from_here(path: Path) -> str:
    """The path as a person in this folder would type it."""
    full, here = path.absolute(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else path)
