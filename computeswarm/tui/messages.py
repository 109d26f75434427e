"""What feeds post: values that arrived, or that didn't."""

from __future__ import annotations

from textual.message import Message

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import Backends
from computeswarm.tui.views import (
    Balance,
    FundsItem,
    JobItem,
    LedgerPage,
    LogLine,
    Meter,
    SellerItem,
    WalletItem,
)


class _Latest(Message):
    """A message that a newer one of its kind replaces while it waits."""

    def can_replace(self, message: Message) -> bool:
        return type(message) is type(self)


class Connected(Message):
    """The backends are there."""

    def __init__(self, backends: Backends) -> None:
        super().__init__()
        self.backends = backends


class ConnectFailed(_Latest):
    """They are not; another try comes by itself after ``retry`` seconds."""

    def __init__(self, error: ComputeSwarmError, retry: float) -> None:
        super().__init__()
        self.error = error
        self.retry = retry


class NodesLoaded(_Latest):
    """Pages of nodes were put in the roster; ``asked`` says for which list."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.asked = asked


class MarketAlive(_Latest):
    """The market tells that it is there, and that the nodes are as they were."""


class JobsLoaded(_Latest):
    def __init__(self, jobs: list[JobItem]) -> None:
        super().__init__()
        self.jobs = jobs


class BalanceLoaded(_Latest):
    def __init__(self, balance: Balance) -> None:
        super().__init__()
        self.balance = balance


class WalletOpened(Message):
    """There is a wallet where there was none, and the buyer pays from it."""


class WalletLoaded(_Latest):
    def __init__(self, wallet: WalletItem) -> None:
        super().__init__()
        self.wallet = wallet


class FundsLoaded(_Latest):
    def __init__(self, funds: FundsItem) -> None:
        super().__init__()
        self.funds = funds


class LedgerLoaded(_Latest):
    def __init__(self, page: LedgerPage) -> None:
        super().__init__()
        self.page = page


class SellerLoaded(_Latest):
    def __init__(self, status: SellerItem) -> None:
        super().__init__()
        self.status = status


class FeedFailed(Message):
    """A feed's fetch failed; it goes on trying."""

    def __init__(self, feed: str, error: ComputeSwarmError) -> None:
        super().__init__()
        self.feed = feed
        self.error = error


class Logged(Message):
    """A tenth of a second's worth of a job's output."""

    def __init__(self, job_id: str, lines: list[LogLine]) -> None:
        super().__init__()
        self.job_id = job_id
        self.lines = lines


class Metered(Message):
    def __init__(self, job_id: str, meter: Meter) -> None:
        super().__init__()
        self.job_id = job_id
        self.meter = meter

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Metered) and message.job_id == self.job_id


class JobEnded(Message):
    def __init__(self, job: JobItem) -> None:
        super().__init__()
        self.job = job


class FollowFailed(Message):
    """The stream of a job broke off for good."""

    def __init__(self, job_id: str, error: ComputeSwarmError) -> None:
        super().__init__()
        self.job_id = job_id
        self.error = error
