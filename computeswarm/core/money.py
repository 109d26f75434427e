"""Money is an integer of atoms (1 USDC = 1,000,000 atoms) everywhere; decimals only on screens."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from computeswarm.core.errors import BadRequest

ATOMS_PER_USDC = 10**6
MAX_ATOMS = 10**15  # a billion USDC: no honest sum is larger, and it fits SQLite and float alike
SECONDS_PER_HOUR = 3600


def parse_usdc(text: str) -> int:
    """Atoms of an amount typed by a person, such as ``"0.38"``, ``"$2"`` or ``"1.5 USDC"``.

    Raises:
        BadRequest: not a number, negative, too large, or with more than 6 decimals.
    """
    bare = text.strip().removeprefix("$").removesuffix("USDC").removesuffix("usdc").strip()
    try:
        amount = Decimal(bare)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount.is_signed():
        raise BadRequest(f"{text!r} is not an amount of USDC; write it like 0.38.")
    if amount > MAX_ATOMS // ATOMS_PER_USDC:
        raise BadRequest(f"{text!r} is more USDC than anyone holds; write a smaller amount.")
    atoms = amount * ATOMS_PER_USDC
    if atoms != atoms.to_integral_value():
        raise BadRequest(f"{text!r} has more than 6 decimals; USDC has no smaller unit.")
    return int(atoms)


def format_usdc(atoms: int, *, places: int | None = None, sign: bool = False) -> str:
    """An amount for the screen, without its unit.

    With ``places`` the amount is rounded to so many decimals; otherwise it is exact, with at least
    two. ``sign`` writes a plus before positive amounts.
    """
    amount = Decimal(atoms) / ATOMS_PER_USDC
    if places is not None:
        text = f"{amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):f}"
    else:
        whole, _, fraction = f"{amount:.6f}".partition(".")
        text = f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
    return f"+{text}" if sign and atoms > 0 else text


def cost_atoms(price_per_hour: int, seconds: float) -> int:
    """Atoms for ``seconds`` at ``price_per_hour`` atoms, rounded up to a whole atom.

    Time is cut to whole microseconds first, so that both sides reckon in integers alike.
    """
    micros = max(0, round(seconds * 1_000_000))
    return -(-price_per_hour * micros // (SECONDS_PER_HOUR * 1_000_000))


def seconds_bought(price_per_hour: int, atoms: int) -> float:
    """How many seconds ``atoms`` pay for; endless for a free node."""
    if price_per_hour <= 0:
        return float("inf")
    return atoms * SECONDS_PER_HOUR / price_per_hour
