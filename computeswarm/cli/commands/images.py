"""``computeswarm images``: the environments that jobs run in."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.cli.context import Context
from computeswarm.core.errors import ExitCode, UsageError
from computeswarm.core.text import clean_line

if TYPE_CHECKING:
    from computeswarm.seller.images import ImageStore

_ACTIONS = """\
  list                      the images this machine offers, and what can be built
  build [NAME] [PACKAGE]…   install packages into an image; python-ml needs none named. Where there
                            is Docker, this machine's Python is put into its engine as well
  add NAME REF@sha256:…     name a container image by its digest; it is pulled when it is needed
  pull [NAME]               pull it (or all of them) now
  check [NAME]              run a small job in an image (or each one), in every sandbox there is
  remove NAME               forget an image and free its disk
"""
_NEEDS_NAME = {
    "build": "Say which image to build, such as `images build python-ml`.",
    "add": "Say what to add, such as `images add mine docker.io/library/python@sha256:…`.",
    "remove": "Say which image to remove; `images list` shows them.",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _ACTIONS
    parser.add_argument("action", choices=("list", "build", "add", "pull", "check", "remove"))
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE|REFERENCE")


async def run(context: Context) -> int:
    action, name, more = context.args.action, context.args.name, context.args.packages
    if action in _NEEDS_NAME and not name:
        raise UsageError(_NEEDS_NAME[action])
    if len(more) != 1 and action == "add":
        raise UsageError(_NEEDS_NAME[action])
    if more and action not in ("build", "add"):
        raise UsageError(f"`images {action}` takes one name at most.")
    async with _store(context) as store:
        match action:
            case "build":
                return await _build(context, store)
            case "check":
                return await _check(context)
            case "pull":
                return await _pull(context, store)
            case "add":
                image = store.add(name, more[0])
                context.text(f"{image.name} is pulled when a job needs it, or by `images pull`.")
            case "remove":
                await store.remove(name)
                context.text(f"The image {name} is gone.")
            case _:
                return await _list(context, store)
    if context.json:
        context.document({"name": name})
    return ExitCode.OK


@contextlib.asynccontextmanager
async def _store(context: Context) -> AsyncIterator[ImageStore]:
    """The seller's images, with the containers of them where Docker can be used."""
    from computeswarm.seller.executors.docker.engine import Engine, socket_path
    from computeswarm.seller.images import ImageStore
    from computeswarm.seller.images.containers import EngineImages

    folder = context.paths.seller
    engine = Engine(socket_path())
    try:
        usable = context.settings.executor in ("auto", "docker") and not (await engine.check())[1]
        containers = EngineImages(folder / "images", engine) if usable else None
        yield ImageStore(folder, containers=containers)
    finally:
        await engine.close()


async def _build(context: Context, store: ImageStore) -> int:
    name = context.args.name
    image = await store.build(
        name, context.args.packages, progress=lambda line: context.note(clean_line(line))
    )
    image = await store.ensure(name, context.note)
    if context.json:
        facts = {"name": image.name, "packages": list(image.packages)}
        context.document({**facts, "container": image.container})
    where = f" Docker has it as {image.container[:19]}." if image.container else ""
    context.text(f"The image {image.name} is ready.{where}")
    return ExitCode.OK


async def _pull(context: Context, store: ImageStore) -> int:
    names = [context.args.name] if context.args.name else [i.name for i in store.offered()]
    made = [await store.ensure(name, context.note) for name in names]
    if context.json:
        context.document({"images": [{"name": i.name, "container": i.container} for i in made]})
    for image in made:
        context.text(f"{image.name} is ready.")
    return ExitCode.OK


async def _list(context: Context, store: ImageStore) -> int:
    from computeswarm.seller.images import RECIPES

    await store.look()
    offered, to_pull = {image.name for image in store.offered()}, store.to_pull()
    rows = []
    for image in store.list():
        ready = "to be pulled" if image.name in to_pull else "ready"
        rows.append(
            (image.name, ready if image.name in offered else "needs docker", image.description)
        )
    known = {name for name, _, _ in rows}
    rows += [(r.name, "not built", r.description) for r in RECIPES.values() if r.name not in known]
    if context.json:
        facts = [
            {"name": name, "ready": state == "ready", "state": state, "description": text}
            for name, state, text in rows
        ]
        context.document({"images": facts})
    context.table(("IMAGE", "STATE", "WHAT IT HOLDS"), rows)
    return ExitCode.OK


async def _check(context: Context) -> int:
    from computeswarm.seller.executors.choose import look_at_each
    from computeswarm.seller.images import ImageStore
    from computeswarm.seller.images.check import check_in

    home = context.paths.seller
    named = context.args.name
    names = [named] if named else [image.name for image in ImageStore(home).list()]
    found: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    # in a folder of its own: looking leaves nothing behind and touches no running seller
    with tempfile.TemporaryDirectory(prefix="computeswarm-check-") as folder:
        looked = await look_at_each(Path(folder))
        try:
            for executor, missing in looked:
                for name in names if not missing else ():
                    problems = await check_in(executor, home, name)
                    found[name][executor.name] = [str(problem) for problem in problems]
        finally:
            for executor, _ in looked:
                await executor.close()
    sandboxes = {executor.name: " ".join(map(str, missing)) for executor, missing in looked}
    _show(context, found, sandboxes)
    bad = any(problem for each in found.values() for problem in each.values())
    return ExitCode.OWN_ERROR if bad else ExitCode.OK


def _show(
    context: Context, found: dict[str, dict[str, list[str]]], sandboxes: dict[str, str]
) -> None:
    if context.json:
        images = [
            {
                "name": name,
                "problems": list(dict.fromkeys(p for each in tried.values() for p in each)),
                "sandboxes": tried,
            }
            for name, tried in found.items()
        ]
        missing = [{"name": n, "ready": not p, "problem": p} for n, p in sandboxes.items()]
        context.document({"images": images, "sandboxes": missing})
    for name, tried in found.items():
        for sandbox, problems in tried.items():
            context.text(f"{name} in {sandbox}: {' '.join(problems) or 'works'}")
    for sandbox, problem in sandboxes.items():
        if problem:
            context.text(f"{sandbox} can't be used here. {problem}")
