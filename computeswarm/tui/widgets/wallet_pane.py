"""The wallet: what it holds, where, what it may spend and on whom."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.format import duration, gauge, money
from computeswarm.tui.views import CapsItem, FundsItem, WalletItem
from computeswarm.tui.widgets.pane import Notice, Pane, Part, line, lines
from computeswarm.tui.widgets.qr import QrCode

LABEL, BAR = 11, 20
WEI = 10**18


@dataclass(frozen=True, slots=True)
class Purse:
    """What the pane shows.

    Args:
        age: seconds since the chain told what the wallet holds.
        offline: why it can't be asked now; empty where it can.
        locked: the key has not been brought yet.
        barred: why nothing can be paid here at all.
    """

    wallet: WalletItem
    funds: FundsItem | None = None
    age: float = 0.0
    offline: str = ""
    locked: bool = False
    barred: str = ""


class WalletPane(Pane):
    def compose(self) -> ComposeResult:
        with Horizontal(classes="body"):
            yield Static("", id="wallet-text", markup=False)
            yield QrCode(id="wallet-qr")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Wallet", "bold"))
        self.notice("◌", "Looking for your wallet…")

    def load(self, purse: Purse, *, roomy: bool) -> None:
        """``roomy``: a line of air between the groups, and the QR code beside them."""
        wallet = purse.wallet
        if wallet.trouble:
            self.notice("✗", "The wallet can't be read", wallet.trouble, tone="$error")
            return
        if not wallet.address:
            self.notice(
                "◇",
                "You have no wallet yet",
                "⏎ makes one here, or takes a key of yours",
                f"It would lie in {wallet.file}",
                "Looking around needs none; buying and selling do.",
            )
            return
        groups = [
            _holds(purse, roomy=roomy),
            _place(purse, roomy=roomy),
            _caps(wallet.caps),
            _limits(wallet.caps, roomy=roomy),
        ]
        rows = [row for group in groups for row in ([*group, line("")] if roomy else group)]
        self.query_one("#wallet-text", Static).update(lines(*rows))
        self.query_one("#wallet-qr", QrCode).show(wallet.address if roomy else "")
        self.query_one("#wallet-qr").display = roomy
        self.foot(("y copies the address" if roomy else "Q QR code · y copies it", "$muted"))
        self.show_body()


def _row(label: str, *parts: Part) -> Content:
    return line((label.ljust(LABEL), "$muted"), *parts)


def _holds(purse: Purse, *, roomy: bool) -> list[Content]:
    funds = purse.funds
    if funds is None:
        why: Part = (
            ("✗ " + purse.offline, "$error") if purse.offline else ("◌ asking the chain…", "")
        )
        return [_row("Balance", why)]
    tone = "bold $error" if purse.wallet.real_money else "bold $primary"
    old: list[Part] = []
    if purse.offline:
        old = [(f"   ✗ offline; this is {duration(purse.age)} old", "$error")]
    usdc = _row("Balance", (f"{_short(funds.usdc)} USDC", tone), *old)
    eth = f"{funds.wei / WEI:.6f}".rstrip("0").rstrip(".")
    why = "pays for transactions: sellers need some, buyers none"
    return [usdc, _row("", (f"{eth} ETH", "$bright"), (f"  {why}", "$muted"))]


def _place(purse: Purse, *, roomy: bool) -> list[Content]:
    wallet = purse.wallet
    worth: Part = ("✗ REAL MONEY", "bold $error") if wallet.real_money else ("test money", "$muted")
    network = _row("Network", (wallet.network, "$bright"), " · ", worth)
    if purse.barred:
        key: Part = (f"✗ {purse.barred}", "$error")
    elif purse.locked:
        key = ("◇ locked: the password is asked when you pay", "$warning")
    else:
        key = ("◆ open: pays within the caps below", "$success")
    rows = [_row("Address", (wallet.address, "bold $bright")), network, _row("Key", key)]
    if roomy:
        rows.insert(2, _row("Market", (wallet.market, "")))
        rows.append(_row("File", (wallet.file, "$muted")))
    return rows


def _caps(caps: CapsItem) -> list[Content]:
    share = caps.used_day / caps.max_day if caps.max_day else 1.0
    tone = "$error" if share >= 1 else "$warning" if share >= 0.8 else "$primary"
    left: Part = (f" · {_short(caps.left_day)} left", "$muted")
    if not caps.left_day:
        left = (" · ✗ nothing left; max_day raises it", "$error")
    day = _row(
        "24 hours",
        (gauge(share, BAR), f"{tone} on $cursor"),
        (f"  {_short(caps.used_day)}", "bold"),
        (f" of {_short(caps.max_day)} USDC used", "$muted"),
        left,
    )
    job = _row(
        "At most",
        (f"{_short(caps.max_job)}", "bold"),
        (" USDC a job, or its budget · ", "$muted"),
        (f"{_short(caps.max_payment)}", "bold"),
        (" USDC a payment", "$muted"),
    )
    return [day, job]


def _limits(caps: CapsItem, *, roomy: bool) -> list[Content]:
    risk: list[Part] = [
        (money(caps.at_risk), "$warning" if caps.at_risk else "$muted"),
        (" USDC signed, fate unknown", "$muted"),
    ]
    locked: list[Part] = [
        (_short(caps.in_channels), "bold" if caps.in_channels else "$muted"),
        (" USDC locked in channels", "$muted"),
    ]
    whom = _row(
        "May pay", _some(caps.payees, "seller"), (" at ", "$muted"), _some(caps.hosts, "host")
    )
    if roomy:
        return [_row("At risk", *risk), _row("Channels", *locked), whom]
    return [_row("At risk", *risk, " · ", *locked), whom]


def _some(allowed: tuple[str, ...], what: str) -> Part:
    if not allowed:
        return (f"any {what}", "$muted")
    more = f" and {len(allowed) - 1} more" if len(allowed) > 1 else ""
    return (f"only {_cut(allowed[0])}{more}", "bold")


def _short(atoms: int) -> str:
    whole, _, fraction = money(atoms).partition(".")
    return f"{int(whole):,}.{fraction}"


def _cut(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
