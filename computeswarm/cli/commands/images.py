"""``computeswarm images build|list|check``: the environments that jobs run in."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeswarm.cli.context import Context
from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.seller.images import ImageStore

_ACTIONS = """\
  list                    the images this machine offers, and what can be built
  build NAME [PACKAGE]…   install packages into an image; python-ml needs none named
  check [NAME]            whether an image (or each one) can be used
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _ACTIONS
    parser.add_argument("action", choices=("list", "build", "check"))
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")


async def run(context: Context) -> int:
    from computeswarm.seller.images import ImageStore

    store = ImageStore(context.paths.seller)
    if context.args.action == "build":
        return await _build(context, store)
    if context.args.action == "check":
        return _check(context, store)
    return _list(context, store)


async def _build(context: Context, store: ImageStore) -> int:
    from computeswarm.core.text import clean_line

    name = context.args.name
    if not name:
        raise UsageError("Say which image to build, such as `images build python-ml`.")
    image = await store.build(
        name, context.args.packages, progress=lambda line: context.note(clean_line(line))
    )
    if context.json:
        context.document({"name": image.name, "packages": list(image.packages)})
    context.text(f"The image {image.name} is ready; a running seller offers it after a restart.")
    return ExitCode.OK


def _list(context: Context, store: ImageStore) -> int:
    from computeswarm.seller.images import RECIPES

    built = {image.name: image.description for image in store.list()}
    rows = [(name, "ready", text) for name, text in built.items()]
    rows += [(r.name, "not built", r.description) for r in RECIPES.values() if r.name not in built]
    if context.json:
        context.document(
            {"images": [{"name": n, "ready": s == "ready", "description": d} for n, s, d in rows]}
        )
    context.table(("IMAGE", "STATE", "WHAT IT HOLDS"), rows)
    return ExitCode.OK


def _check(context: Context, store: ImageStore) -> int:
    names = [context.args.name] if context.args.name else [image.name for image in store.list()]
    found = {name: [str(problem) for problem in store.check(name)] for name in names}
    if context.json:
        context.document({"images": [{"name": n, "problems": p} for n, p in found.items()]})
    for name, problems in found.items():
        context.text(f"{name}: {'; '.join(problems) or 'can be used'}")
    return ExitCode.OWN_ERROR if any(found.values()) else ExitCode.OK
