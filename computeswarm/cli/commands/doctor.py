"""``computeswarm doctor``: what this machine can do, and what to fix."""

from __future__ import annotations

import argparse

from computeswarm.cli.context import Context
from computeswarm.core.errors import ExitCode
from computeswarm.core.text import clean_line

_MARKS = {"ok": "ok  ", "note": "note", "fix": "FIX "}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exits with 125 when something has to be fixed; notes alone don't count."


async def run(context: Context) -> int:
    from computeswarm.cli.doctor import examine

    context.warn_of_real_money()
    findings = await examine(context)
    wrong = any(finding.status == "fix" for finding in findings)
    if context.json:
        checks = [finding.document() for finding in findings]
        context.document({"ok": not wrong, "checks": checks, **context.settings.chain.document()})
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        detail = clean_line(finding.detail, limit=500)
        context.text(f"{_MARKS[finding.status]}  {finding.name:<{width}}  {detail}")
        if finding.fix:
            context.text(f"{'':6}{'':<{width}}  {clean_line(finding.fix, limit=500)}")
    return ExitCode.OWN_ERROR if wrong else ExitCode.OK
