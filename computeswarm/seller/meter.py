"""What a running job has used of what was paid for it. Pure arithmetic on monotonic seconds."""

from __future__ import annotations

from computeswarm.core.money import cost_atoms
from computeswarm.core.quotes import Quote


class Meter:
    """Begins once, ends once. ``paid_slices`` grows while the job runs."""

    def __init__(self, quote: Quote, paid_slices: int) -> None:
        self._quote = quote
        self.paid_slices = paid_slices
        self._begun: float | None = None
        self._ended: float | None = None
        self._paused: float | None = None
        self._pauses: list[tuple[float, float]] = []
        """When it stood still and went on again."""
        self._launched = False

    @property
    def begun(self) -> bool:
        """Whether time costs already."""
        return self._begun is not None

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self._paused is not None

    def launch(self) -> None:
        """The job is started: from here on it costs its minimum, if it is to cost anything."""
        self._launched = True

    def pause(self, at: float) -> None:
        """From here on time costs nothing; a second call changes nothing."""
        if self._paused is None:
            self._paused = at

    def resume(self, at: float) -> None:
        """Time costs again."""
        if self._paused is not None:
            self._pauses.append((self._paused, at))
            self._paused = None

    def _stood(self, now: float) -> float:
        """Seconds of metered time in which it stood still."""
        begun, pauses = self._begun or 0.0, list(self._pauses)
        if self._paused is not None:
            pauses.append((self._paused, now))
        return sum(max(0.0, min(end, now) - max(start, begun)) for start, end in pauses)

    @property
    def _past(self) -> float:
        """Seconds of all pauses that are over."""
        return sum(max(0.0, end - max(start, self._begun or 0.0)) for start, end in self._pauses)

    def begin(self, at: float) -> None:
        """From here on time costs; a second call changes nothing."""
        if self._begun is None:
            self._begun = at

    def end(self, at: float) -> None:
        """Time costs no more; a second call changes nothing."""
        if self._ended is None:
            self._ended = at

    def seconds(self, now: float) -> float:
        """Metered time."""
        if self._begun is None:
            return 0.0
        now = now if self._ended is None else self._ended
        return max(0.0, now - self._begun - self._stood(now))

    def milliseconds(self, now: float) -> int:
        """Metered time, cut to whole milliseconds: what is charged for."""
        return int(self.seconds(now) * 1000)

    @property
    def paid_seconds(self) -> int:
        """Time that is paid for."""
        return min(self.paid_slices * self._quote.slice_seconds, self._quote.max_seconds)

    @property
    def paid(self) -> int:
        """Atoms that the paid slices cost."""
        return self._quote.paid_through(self.paid_slices - 1) if self.paid_slices else 0

    def cost(self, now: float) -> int:
        """Atoms for the metered time, at least the quote's minimum, never more than was paid."""
        metered = cost_atoms(self._quote.price_per_hour, self.milliseconds(now) / 1000)
        least = self._quote.minimum_charge if self._launched else 0
        return min(max(metered, least), self.paid)

    def left_ms(self, now: float) -> int:
        """Paid time that is left."""
        return max(0, self.paid_seconds * 1000 - self.milliseconds(now))

    @property
    def limit_at(self) -> float | None:
        """When the job's time is up, if it stands still no more."""
        if self._begun is None:
            return None
        return self._begun + self._past + self._quote.max_seconds

    @property
    def funds_at(self) -> float | None:
        """When the paid slices are used up; None before the start, or when all are paid."""
        if self._begun is None or self.paid_slices >= self._quote.slice_count:
            return None
        return self._begun + self._past + self.paid_seconds
