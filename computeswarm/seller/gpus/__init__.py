"""What this machine has to sell, and how it is doing."""

from computeswarm.seller.gpus.backends import GpuBackend, GpuFault, GpuReading, GpuUser
from computeswarm.seller.gpus.detect import Inventory, detect
from computeswarm.seller.gpus.host import HostReading
from computeswarm.seller.gpus.monitor import GpuMonitor

__all__ = [
    "GpuBackend",
    "GpuFault",
    "GpuMonitor",
    "GpuReading",
    "GpuUser",
    "HostReading",
    "Inventory",
    "detect",
]
