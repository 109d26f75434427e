"""What the app remembers, and a file of it that is damaged or can't be written."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from computeswarm.tui.draft import JobDraft
from computeswarm.tui.memory import MOST, Memory, SavedSearch


def test_everything_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "terminal.json"
    memory = Memory(path)
    memory.mark("nd-1", True)
    memory.mark("nd-2", True)
    memory.mark("nd-1", False)
    memory.save_search(SavedSearch("cheap", "price<1", "-price"))
    memory.save_search(SavedSearch("cheap", "price<0.5", "cost"))
    memory.save_search(SavedSearch("big", "vram>=80"))
    memory.forget_search("nobody's")
    memory.draft = JobDraft(script="a.py", env="A=1")
    memory.last_job = JobDraft(script="b.py", budget="2")
    memory.welcomed = True
    again = Memory(path)
    assert again.favourites == {"nd-2"}
    assert again.searches == (
        SavedSearch("cheap", "price<0.5", "cost"),
        SavedSearch("big", "vram>=80"),
    )
    assert again.draft == JobDraft(script="a.py", env="A=1")
    assert again.last_job == JobDraft(script="b.py", budget="2")
    assert again.welcomed
    assert not again.trouble
    again.forget_search("cheap")
    again.draft = None
    third = Memory(path)
    assert [search.name for search in third.searches] == ["big"]
    assert third.draft is None


def test_it_is_the_users_own_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "terminal.json"
    memory = Memory(path)
    memory.draft = JobDraft(script="a.py", secrets="TOKEN", secret_values="hunter2")
    memory.last_job = JobDraft(script="a.py", secret_values="hunter2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "hunter2" not in path.read_text()
    assert Memory(path).draft == JobDraft(script="a.py", secrets="TOKEN")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "\x00",
        '{"favourites": 7, "searches": {"a": 1}, "draft": [], "last_job": "x", "welcomed": 1}',
        '{"favourites": [1, null], "searches": [7, {}, {"name": 1}, {"name": "a"}]}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "terminal.json"
    path.write_text(text)
    memory = Memory(path)
    assert memory.favourites == frozenset()
    assert memory.searches == ()
    assert memory.draft is None
    assert memory.last_job is None
    assert not memory.welcomed
    memory.mark("nd-1", True)
    assert Memory(path).favourites == {"nd-1"}


def test_unknown_fields_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "terminal.json"
    path.write_text(json.dumps({"draft": {"script": "a.py", "colour": "red", "gpus": 2}}))
    assert Memory(path).draft == JobDraft(script="a.py")


def test_where_it_cannot_be_written_it_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    memory = Memory(tmp_path / "file" / "terminal.json")
    memory.mark("nd-1", True)
    assert memory.favourites == {"nd-1"}
    assert "terminal.json can't be" in memory.trouble


def test_it_does_not_grow_for_ever() -> None:
    memory = Memory()
    for number in range(MOST + 5):
        memory.mark(f"nd-{number}", True)
        memory.save_search(SavedSearch(str(number), "online"))
    assert len(memory.favourites) == len(memory.searches) == MOST
    assert f"nd-{MOST + 4}" in memory.favourites
    assert "nd-0" not in memory.favourites
