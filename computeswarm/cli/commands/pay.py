"""``computeswarm pay URL``: ask any x402 server for something, pay what it costs, print it."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from computeswarm.core.errors import ExitCode, PolicyRefused, UsageError

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.http.web import WebRequest
    from computeswarm.buyer.shop import Bought, PriceTag
    from computeswarm.cli.context import Context

_MAX_JSON_BODY = 16 * 1024 * 1024
_EPILOG = """\
Examples:
  computeswarm pay https://api.example.com/weather?city=Berlin --max 0.01
  computeswarm pay https://api.example.com/report --data @question.json --output report.pdf --yes

The answer goes to stdout, what was paid to stderr. Nothing is signed before you agree, unless the
payee is in allow_payees or the host in allow_hosts; real money is always asked for. Redirects are
not followed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("url", metavar="URL", help="what to ask for")
    parser.add_argument("--method", metavar="NAME", help="GET, or POST where there is --data")
    parser.add_argument("--data", metavar="TEXT", help="the body; @FILE reads it, @- stdin")
    parser.add_argument(
        "--header", action="append", default=[], metavar="K:V", help="header (repeatable)"
    )
    parser.add_argument("--max", metavar="USD", help="most USDC that it may cost (max_payment)")
    parser.add_argument("--output", metavar="FILE", help="where the answer goes, if not to stdout")
    parser.add_argument("--yes", action="store_true", help="pay without asking")


async def run(context: Context) -> int:
    """From the URL to its answer."""
    from computeswarm.cli.buying import buyer_of, unlock
    from computeswarm.core.money import parse_usdc

    request = await asyncio.to_thread(_request, context)
    await asyncio.to_thread(_check_output, context.args.output)
    most = parse_usdc(context.args.max or context.settings.max_payment)
    async with buyer_of(context, unlock(context)) as buyer:
        agree = _Agreement(context, buyer)
        async with buyer.fetch(request, most=most, agree=agree) as bought:
            await _deliver(context, buyer, bought)
        return ExitCode.OK if bought.status < 400 else ExitCode.OWN_ERROR


def _request(context: Context) -> WebRequest:
    from computeswarm.buyer.http.web import MAX_REQUEST, WebRequest

    args = context.args
    pairs = [text.partition(":") for text in args.header]
    if wrong := next((name for name, colon, _ in pairs if not colon or not name), None):
        raise UsageError(f"--header takes Name: value, not {wrong[:40]!r}.")
    headers = tuple((name.strip(), value.strip()) for name, _, value in pairs)
    body = b""
    if args.data is not None:
        body = _data(args.data, MAX_REQUEST + 1)
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers += (("Content-Type", "application/json"),)
    method = (args.method or ("GET" if args.data is None else "POST")).upper()
    return WebRequest(args.url, method, headers, body)


def _check_output(path: str | None) -> None:
    """What can't be written is found out before it is paid for, and without leaving a file."""
    if path is None:
        return
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{path}: this is a folder; give --output a file.")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: there is no such folder; make it, or choose another file.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UsageError(f"{path}: this can't be written; choose another file.")


def _data(text: str, limit: int) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    if text == "@-":
        return sys.stdin.buffer.read(limit)
    with Path(text[1:]).open("rb") as file:
        return file.read(limit)


class _Agreement:
    """Shows a price, and asks whoever sits there unless that was settled beforehand."""

    def __init__(self, context: Context, buyer: Buyer) -> None:
        self._context = context
        self._chain = buyer.chain

    def __call__(self, tag: PriceTag) -> bool:
        from computeswarm.core.money import format_usdc
        from computeswarm.core.text import clean_line

        context, chain = self._context, self._chain
        real = chain.real_money
        label = context.red(chain.label) if real else chain.label
        context.note(f"Pay     {format_usdc(tag.amount)} USDC on {label}")
        context.note(f"To      {tag.pay_to}{' (its own signed offer)' if tag.signed else ''}")
        context.note(f"For     {clean_line(tag.url)}")
        if tag.description:
            context.note(f"        {tag.description}")
        if context.args.yes or (self._allowed(tag) and not real):
            return True
        if not context.interactive:
            raise PolicyRefused("Nobody is here to agree to the price; add --yes.", rule="confirm")
        return context.agrees(context.red("Pay REAL MONEY?") if real else "Pay?")

    def _allowed(self, tag: PriceTag) -> bool:
        """Whether the user named payees or hosts before: the guard has checked that it is one."""
        settings = self._context.settings
        return bool(settings.payees or settings.hosts)


async def _deliver(context: Context, buyer: Buyer, bought: Bought) -> None:
    for line in _receipt_lines(context, bought):
        context.note(line)
    if context.json:
        body = await bought.read(_MAX_JSON_BODY)
        if context.args.output:
            await asyncio.to_thread(_save, context.args.output, body)
        context.document(_document(buyer, bought, None if context.args.output else body))
        return
    if context.args.output:
        await _into_file(context.args.output, bought)
    elif sys.stdout.isatty():
        await _onto_terminal(bought)
    else:
        await _into(sys.stdout.buffer, bought)


async def _into_file(path: str, bought: Bought) -> None:
    file = await asyncio.to_thread(Path(path).open, "wb")
    with file:
        await _into(file, bought)


async def _into(file: BinaryIO, bought: Bought) -> None:
    async for chunk in bought.chunks():
        await asyncio.to_thread(file.write, chunk)
    await asyncio.to_thread(file.flush)


async def _onto_terminal(bought: Bought) -> None:
    """As text without control sequences: a stranger wrote it."""
    from computeswarm.core.text import StreamDecoder

    decoder = StreamDecoder()
    async for chunk in bought.chunks():
        for line in decoder.feed(chunk):
            print(line)  # noqa: T201 - stdout is this command's product
    for line in decoder.flush():
        print(line)  # noqa: T201


def _save(path: str, body: bytes) -> None:
    Path(path).write_bytes(body)


def _receipt_lines(context: Context, bought: Bought) -> list[str]:
    from computeswarm.core.money import format_usdc
    from computeswarm.core.text import clean_line

    if bought.payment is None:
        return [f"computeswarm: nothing was asked for it; the server answers {bought.status}."]
    paid = bought.payment
    lines = [f"Paid    {format_usdc(paid.amount)} USDC to {paid.pay_to}"]
    if bought.receipt is not None and bought.receipt.success:
        signed = " (receipt signed by its payee)" if bought.signed_receipt else ""
        lines.append(f"Tx      {clean_line(bought.receipt.transaction, limit=66) or '-'}{signed}")
    else:
        lines.append("        The server gave no receipt; the chain will show what became of it.")
    if bought.status >= 400:
        lines.append(f"computeswarm: the server answers {bought.status}.")
    return lines


def _document(buyer: Buyer, bought: Bought, body: bytes | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "status": bought.status,
        "content_type": bought.headers.get("content-type", ""),
        "payment": None,
        **buyer.chain.document(),
    }
    if bought.payment is not None:
        paid, receipt = bought.payment, bought.receipt
        document["payment"] = {
            "amount": paid.amount,
            "pay_to": paid.pay_to,
            "payer": paid.payer,
            "nonce": paid.nonce,
            "x402_version": paid.version,
            "settled": receipt is not None and receipt.success,
            "transaction": receipt.transaction if receipt else "",
            "signed_receipt": bought.signed_receipt,
        }
    if body is not None:
        try:
            document["body"] = body.decode()
        except UnicodeDecodeError:
            document["body_base64"] = base64.b64encode(body).decode()
    return document
