"""What the app remembers from one run to the next: one small file of the user's own.

Nothing in it matters for money. A file that can't be read or written is as good as none: the app
says so once and goes on.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from computeswarm.tui.draft import JobDraft

FILE = "terminal.json"
MOST = 200
"""So many favourites and saved searches are kept; the newest."""
MOST_JOBS = 50
"""Drafts of so many jobs are kept, so that they can be had again."""
_NEVER_KEPT = ("secret_values",)

T = TypeVar("T", JobDraft, "SavedSearch")


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A query of the filter bar with its order, under a name."""

    name: str
    query: str
    sort: str = "price"
    """A sort key; ``-`` before it reverses."""


class Memory:
    """Read once when the app starts, written after each change."""

    def __init__(self, path: Path | None = None) -> None:
        """``path`` is the file; None keeps everything in memory only (tests, a read-only app)."""
        self._path = path
        self.trouble = ""
        """Why the last writing or reading failed; empty where it did not."""
        self._values: dict[str, Any] = self._read()

    # -- what is remembered

    @property
    def favourites(self) -> frozenset[str]:
        """Ids of nodes."""
        return frozenset(_texts(self._values.get("favourites")))

    def mark(self, node_id: str, favourite: bool) -> None:
        """Make a node a favourite, or none."""
        kept = [known for known in _texts(self._values.get("favourites")) if known != node_id]
        self._keep("favourites", ([*kept, node_id] if favourite else kept)[-MOST:])

    @property
    def searches(self) -> tuple[SavedSearch, ...]:
        """Oldest first."""
        return tuple(
            found
            for entry in _list(self._values.get("searches"))
            if (found := _made(SavedSearch, entry)) is not None and found.name
        )

    def save_search(self, search: SavedSearch) -> None:
        """Keep it; one of the same name is replaced."""
        kept = [known for known in self.searches if known.name != search.name]
        self._keep("searches", [asdict(known) for known in [*kept, search][-MOST:]])

    def forget_search(self, name: str) -> None:
        """Drop the search of that name."""
        self._keep("searches", [asdict(s) for s in self.searches if s.name != name])

    @property
    def draft(self) -> JobDraft | None:
        """The job somebody was writing and has not bought."""
        return _made(JobDraft, self._values.get("draft"))

    @draft.setter
    def draft(self, draft: JobDraft | None) -> None:
        self._keep("draft", _without_secrets(draft))

    @property
    def last_job(self) -> JobDraft | None:
        """The job that was bought last."""
        return _made(JobDraft, self._values.get("last_job"))

    @last_job.setter
    def last_job(self, draft: JobDraft) -> None:
        self._keep("last_job", _without_secrets(draft))

    def bought(self, job_id: str, draft: JobDraft) -> None:
        """A draft has become a job: there is none any more, and the job can be had again."""
        self._values["draft"] = None
        self._values["jobs"] = [
            *(e for e in _list(self._values.get("jobs")) if _job_of(e) != job_id),
            {"job_id": job_id, **(_without_secrets(draft) or {})},
        ][-MOST_JOBS:]
        self.last_job = draft

    def job_draft(self, job_id: str) -> JobDraft | None:
        """What a job was bought from; None where that is not known any more."""
        for entry in _list(self._values.get("jobs")):
            if _job_of(entry) == job_id:
                return _made(JobDraft, entry)
        return None

    @property
    def welcomed(self) -> bool:
        """Whether the welcome has been seen."""
        return self._values.get("welcomed") is True

    @welcomed.setter
    def welcomed(self, value: bool) -> None:
        self._keep("welcomed", value)

    # -- the file

    def _keep(self, name: str, value: Any) -> None:
        self._values[name] = value
        if self._path is None:
            return
        fresh = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # a draft's environment may hold what is nobody else's business
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                json.dump(self._values, f, indent=1)
            fresh.replace(self._path)
            self.trouble = ""
        except OSError as error:
            self.trouble = f"{self._path} can't be written: {error.strerror}."
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            values = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self.trouble = f"{self._path} can't be read ({type(error).__name__}); it starts anew."
            return {}
        return values if isinstance(values, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _job_of(entry: Any) -> Any:
    return entry.get("job_id") if isinstance(entry, dict) else None


def _texts(value: Any) -> list[str]:
    return [entry for entry in _list(value) if isinstance(entry, str)]


def _made(kind: type[T], entry: Any) -> T | None:
    """An object of a dataclass whose fields are texts, from what the file holds of it."""
    if not isinstance(entry, dict):
        return None
    names = {f.name for f in fields(kind)}
    given = {name: text for name, text in entry.items() if name in names and isinstance(text, str)}
    try:
        return kind(**given)
    except TypeError:  # one that it must have is missing
        return None


def _without_secrets(draft: JobDraft | None) -> dict[str, str] | None:
    if draft is None:
        return None
    return {name: text for name, text in asdict(draft).items() if name not in _NEVER_KEPT}
