"""What GPUs can do by their makers' data sheets: dense FP16 matrix products, summed in FP32.

Whole TFLOPS, rounded down, without sparsity. Nothing is guessed: a model that is not listed, a
laptop's (whose power decides) and a slice of a card have no figure, which is 0.

Sources: NVIDIA's data sheets of A2 to B200, T4 and V100 (where a sheet states the figure with
sparsity, half of it); for GeForce and RTX cards the appendices of the Turing, Ampere GA102, Ada and
RTX Blackwell architecture papers, whose figure is 4 operations a core and clock at the stated boost
on GeForce (8 on Turing and on workstation cards), which gives the later models of each family; the
data sheets of AMD's Instinct and Radeon cards.
"""

from __future__ import annotations

import re
from functools import lru_cache

from computeswarm.core.text import squeeze

_MAKERS = re.compile(r"^(nvidia|amd|geforce|tesla|quadro|instinct|radeon)+")
_SHEETS: tuple[tuple[str, int], ...] = (
    ("b200", 2250),
    ("g?h200(480gb|144gbhbm3e|141gbhbm3e)?", 989),
    ("h200nvl", 835),
    ("h10080gbhbm3|h100sxm5?(80gb)?", 989),
    ("h100nvl", 835),
    ("h100pcie", 756),
    ("a100(sxm4|pcie)?(40gb|80gb)?(pcie)?", 312),
    ("a40", 149),
    ("a30", 165),
    ("a10", 125),
    ("a2", 18),
    ("l40s", 362),
    ("l40", 181),
    ("l4", 121),
    ("t4", 65),
    ("v100sxm[23](16gb|32gb)(lsc?)?", 125),
    ("v100pcie(16gb|32gb)", 112),
    ("v100spcie32gb", 130),
    ("rtx6000adageneration", 364),
    ("rtxa6000", 154),
    ("rtxa5000", 111),
    ("rtxa4000", 76),
    ("rtx5090", 209),
    ("rtx5080", 112),
    ("rtx5070ti", 87),
    ("rtx5070", 61),
    ("rtx4090", 165),
    ("rtx4080super", 104),
    ("rtx4080", 97),
    ("rtx4070tisuper", 88),
    ("rtx4070ti", 80),
    ("rtx4070super", 70),
    ("rtx4070", 58),
    ("rtx4060ti", 44),
    ("rtx4060", 30),
    ("rtx3090ti", 80),
    ("rtx3090", 71),
    ("rtx3080ti", 68),
    ("rtx3080", 59),
    ("rtx3070ti", 43),
    ("rtx3070", 40),
    ("rtx3060ti", 32),
    ("rtx2080ti", 53),
    ("mi3(00|25)x(oam)?", 1307),
    ("mi210", 181),
    ("mi100", 184),
    ("rx7900xtx", 122),
    ("rx7900xt", 103),
)


@lru_cache(maxsize=1024)
def sheet_tflops(model: str) -> int:
    """TFLOPS of a model as its driver names it; 0 where no data sheet is known for it."""
    name = _MAKERS.sub("", squeeze(model[:120]))
    return next((tflops for pattern, tflops in _SHEETS if re.fullmatch(pattern, name)), 0)
