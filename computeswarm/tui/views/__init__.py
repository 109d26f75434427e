"""What the screens show, as plain values: cleaned of hostile text, with no models behind them.

The backends' edge (``backends.mapping``) makes these from the façades' models. They cost nothing to
import, so the first frame doesn't wait for pydantic. Money in atoms, sizes in bytes, times in unix
seconds unless a name says otherwise.
"""

from computeswarm.tui.views.jobs import (
    REFUSED,
    Download,
    JobItem,
    LogKind,
    LogLine,
    Meter,
    OfferItem,
    Transfer,
)
from computeswarm.tui.views.nodes import (
    FacetItem,
    Gap,
    NodeItem,
    NodePage,
    PricePoint,
    PriceTrend,
)
from computeswarm.tui.views.seller import (
    AdviceItem,
    EarningsItem,
    EventItem,
    GpuEarned,
    GpuItem,
    HostItem,
    SellerItem,
    SellerJob,
)
from computeswarm.tui.views.wallet import (
    Balance,
    CapsItem,
    FundsItem,
    Identity,
    LedgerItem,
    LedgerPage,
    LedgerSums,
    WalletItem,
)

__all__ = [
    "REFUSED",
    "AdviceItem",
    "Balance",
    "CapsItem",
    "Download",
    "EarningsItem",
    "EventItem",
    "FacetItem",
    "FundsItem",
    "Gap",
    "GpuEarned",
    "GpuItem",
    "HostItem",
    "Identity",
    "JobItem",
    "LedgerItem",
    "LedgerPage",
    "LedgerSums",
    "LogKind",
    "LogLine",
    "Meter",
    "NodeItem",
    "NodePage",
    "OfferItem",
    "PricePoint",
    "PriceTrend",
    "SellerItem",
    "SellerJob",
    "Transfer",
    "WalletItem",
]
