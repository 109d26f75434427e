"""What a seller is told at its start, once settings are read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.chains import ChainInfo
from computeswarm.core.nodes import Hardware
from computeswarm.core.windows import ALWAYS, Windows

MIB = 1024 * 1024


@dataclass(slots=True)
class SellerConfig:
    """Money in atoms, times in seconds, sizes in bytes. Only ``seller.reload`` changes it."""

    folder: Path
    """State of this seller: jobs.db, settlements, inputs, logs, outputs, owner.json."""
    chain: ChainInfo
    name: str
    market: str
    hardware: Hardware
    price_per_hour: int
    """Of one GPU; of the whole machine on a cpu node."""
    endpoint: str = ""
    """Where buyers reach us; the listening address when empty."""
    region: str = ""
    slots: int = 1
    slice_seconds: int = 60
    tick_seconds: int = 2
    """A slice of jobs that are paid by a channel; never longer than ``slice_seconds``."""
    max_job_seconds: int = 86400
    keep_outputs: float = 86400
    keep_inputs: float = 86400
    """After its last use an uploaded input stays so long for its buyer's next job."""
    network: bool = False
    """Jobs that ask for it reach the internet, and nothing of ours."""
    trusted: frozenset[str] = frozenset()
    """Lower-case wallets served by an executor without walls."""
    queue_limit: int = 64
    """Paid jobs that may wait; beyond that no payment is asked."""
    windows: Windows = ALWAYS
    """When jobs are taken and run."""
    evict_at_close: bool = False
    """What still runs as a window ends is ended with a full refund; otherwise it may finish."""
    pause_when_used: bool = True
    """A job stands still while somebody else uses its GPU."""
    pause_seconds: int = 1800
    """The longest that it does; then it is ended with a full refund."""
    power_limit_watts: int = 0
    """For each GPU; 0 leaves it as it is."""
    asks_owner: bool = False
    """A paid job waits for the owner's yes."""
    ask_seconds: int = 120
    """Without an answer for so long it goes back."""
    minimum_charge: int = 0
    """What a job that was started costs at least."""
    term_seconds: float = 5.0
    """From SIGTERM to SIGKILL."""
    silent_start: float = 2.0
    """A job without output is metered from its launch once so much time has passed."""
    inputs_seconds: float = 600.0
    """Without any progress of its upload for so long, a job fails."""
    output_bytes: int = 64 * MIB
    """stdout and stderr of one job that are kept."""
    store_bytes: int = 20 * 1024 * MIB
    """Outputs of all ended jobs together; the oldest go first."""
    upload_bytes: int = 20 * 1024 * MIB
    """Uploaded inputs together; those that no job waits for go first, the oldest of them."""
    dust: int = 1000
    """Refunds below this are kept as owed until the same buyer's next refund."""

    @property
    def job_cpus(self) -> float:
        """CPU cores of each job: an equal share, at least one."""
        return max(1.0, self.hardware.cpu_cores / self.slots)
