"""A person's own keys: what ``[keys]`` in config.toml changes in the keymap.

    [keys]
    "job.cancel" = "X"
    "row.down" = "J,down"

An id stands for every place that has it. Dialogs' Enter and Escape are not in the table: whatever
is changed, a dialog can be left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from computeswarm.core.errors import ConfigError
from computeswarm.tui.keymap import GROUPS, KEYS, Key

_NAMES = {
    "/": "slash", "?": "question_mark", ",": "comma", ".": "full_stop", " ": "space",
    ";": "semicolon", ":": "colon", "-": "minus", "+": "plus", "*": "asterisk", "=": "equals_sign",
    "#": "number_sign", "!": "exclamation_mark", "<": "less_than_sign", ">": "greater_than_sign",
}  # fmt: skip
_SHOWN = {
    **{name: sign for sign, name in _NAMES.items()},
    "space": "␣", "escape": "esc", "enter": "⏎", "pageup": "PgUp", "pagedown": "PgDn",
    "up": "↑", "down": "↓", "left": "←", "right": "→",
}  # fmt: skip
_SPECIAL = (
    "tab", "enter", "escape", "space", "up", "down", "left", "right", "home", "end", "pageup",
    "pagedown", "insert", "delete", "backspace", *(f"f{number}" for number in range(1, 13)),
)  # fmt: skip
_KEY = re.compile(
    rf"(ctrl\+|shift\+|alt\+)*([A-Za-z0-9]|{'|'.join((*_SPECIAL, *_NAMES.values()))})"
)


class Keys:
    """The keymap with a person's changes in it.

    Args:
        changes: keys by id, as ``[keys]`` has them.

    Raises:
        ConfigError: an id that is none, a key that can't be read, or one key for two things.
    """

    def __init__(self, changes: Mapping[str, str] | None = None) -> None:
        changes = changes or {}
        ids = {key.id for key in KEYS}
        for name in changes:
            if name not in ids:
                raise ConfigError(_unknown(name, ids))
        own = {name: _spelled(name, text) for name, text in changes.items()}
        self.all: tuple[Key, ...] = tuple(
            replace(key, keys=own[key.id], shown=shown(own[key.id])) if key.id in own else key
            for key in KEYS
        )
        self._check(own)

    def _check(self, own: Mapping[str, str]) -> None:
        for key in self.all:
            if key.id not in own:
                continue
            for other in self.all:
                both = set(key.keys.split(",")) & set(other.keys.split(","))
                meet = key.where == other.where or "app" in (key.where, other.where)
                if both and meet and key.id != other.id:
                    raise ConfigError(
                        f'[keys]: "{key.id}" can\'t be {min(both)}: that is "{other.id}" '
                        f"({GROUPS[other.where]}). Give one of them another key."
                    )

    @property
    def textual(self) -> dict[str, str]:
        """What is other than in the table, by the bindings' ids, as Textual takes it."""
        return {
            f"{mine.where}.{mine.id}": mine.keys
            for mine, theirs in zip(self.all, KEYS, strict=True)
            if mine.keys != theirs.keys
        }

    def footer(self, *places: str) -> list[Key]:
        """The keys a footer shows for these places, in its order."""
        return sorted((k for k in self.all if k.footer and k.where in places), key=_rank)


def shown(keys: str) -> str:
    """Keys as the footer and the help write them."""
    words = []
    for key in keys.split(","):
        *held, last = key.split("+") if key != "+" else ["+"]
        marks = "".join({"ctrl": "^", "shift": "⇧", "alt": "⌥"}.get(word, "") for word in held)
        words.append(marks + _SHOWN.get(last, last))
    return " ".join(words)


def spelled(key: str) -> str:
    """A key as Textual spells it, from how a person may write it; empty where it is none."""
    key = _NAMES.get(key, key).strip()
    key = re.sub(r"^\^(.)$", r"ctrl+\1", key)
    return key if _KEY.fullmatch(key) else ""


def _spelled(name: str, text: str) -> str:
    parts = [text] if text in (",", " ") else text.split(",")
    keys = [spelled(part if part == " " else part.strip()) for part in parts]
    if not all(keys):
        raise ConfigError(
            f'[keys]: "{name}" = "{text[:40]}" names no key; write a letter (X), a sign (/), '
            "ctrl+x, f5, space or the like, and a comma between several."
        )
    return ",".join(keys)


def _unknown(name: str, ids: set[str]) -> str:
    near = get_close_matches(name, ids, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "? in the app shows each key's id."
    return f'[keys]: there is no "{name[:40]}"; {hint}'


def _rank(key: Key) -> int:
    return key.footer
