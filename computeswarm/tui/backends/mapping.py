"""From models to what the screens show. Here every stranger's text is cleaned, once."""

from __future__ import annotations

from computeswarm.core.events import (
    EndEvent,
    FilesEvent,
    JobEvent,
    MeterEvent,
    OutputEvent,
    PaymentEvent,
    StateEvent,
)
from computeswarm.core.jobs import JobView, Phases
from computeswarm.core.money import format_usdc
from computeswarm.core.text import StreamDecoder, clean_line
from computeswarm.tui.views import (
    LogKind,
    LogLine,
    Meter,
    Transfer,
)


def phases(times: Phases) -> tuple[tuple[str, int], ...]:
    """The phases that began, in order."""
    named = times.model_dump()
    return tuple((name, at) for name, at in named.items() if at is not None)


def payments(view: JobView) -> tuple[Transfer, ...]:
    return tuple(Transfer(p.amount, clean_line(p.transaction, limit=66)) for p in view.payments)


def deposit(view: JobView) -> Transfer | None:
    made = view.channel
    return None if made is None else Transfer(made.deposit, clean_line(made.transaction, limit=66))


def refund(view: JobView) -> Transfer | None:
    back = view.refund
    return None if back is None else Transfer(back.amount, clean_line(back.transaction, limit=66))


class EventReader:
    """A job's events to lines and meters; holds unfinished lines of both streams."""

    def __init__(self) -> None:
        self._decoders = {"stdout": StreamDecoder(), "stderr": StreamDecoder()}

    def read(self, event: JobEvent) -> list[LogLine | Meter]:
        """What a screen shows of one event."""
        match event:
            case OutputEvent():
                lines = self._decoders[event.stream].feed(event.raw())
                return [LogLine(line, event.stream, event.at) for line in lines]
            case StateEvent() if event.state.terminal:
                return []  # the end event that follows says it with the sums
            case StateEvent():
                reason = f": {clean_line(event.reason, limit=500)}" if event.reason else ""
                return [LogLine(f"{event.state}{reason}".replace("_", " "), "note", event.at)]
            case PaymentEvent():
                return [_payment_line(event)]
            case MeterEvent():
                return [
                    Meter(
                        event.metered_ms,
                        event.cost,
                        event.paid,
                        event.utilization_pct,
                        event.memory_used_bytes,
                    )
                ]
            case FilesEvent():
                return [_files_line(event)]
            case EndEvent():
                return [*self.rest(event.at), _end_line(event)]

    def rest(self, at: int) -> list[LogLine | Meter]:
        """The last lines, where they had no newline."""
        found: list[LogLine | Meter] = []
        for stream, decoder in self._decoders.items():
            kind: LogKind = "stderr" if stream == "stderr" else "stdout"
            found += [LogLine(line, kind, at) for line in decoder.flush()]
        return found


def _payment_line(event: PaymentEvent) -> LogLine:
    amount = f"{format_usdc(event.amount)} USDC"
    tx = clean_line(event.transaction, limit=66)
    proof = f", tx {tx[:10]}…" if tx else ""
    if event.direction == "refunded":
        return LogLine(f"{amount} came back{proof}", "good", event.at)
    which = "" if event.slice is None else f" for slice {event.slice + 1}"
    return LogLine(f"paid {amount}{which}{proof}", "good", event.at)


def _files_line(event: FilesEvent) -> LogLine:
    names = ", ".join(clean_line(file.path, limit=60) for file in event.files[:3])
    more = f" and {len(event.files) - 3} more" if len(event.files) > 3 else ""
    return LogLine(f"outputs ready: {names}{more}", "note", event.at)


def _end_line(event: EndEvent) -> LogLine:
    job = event.job
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    text = f"{job.state}{code} · cost {format_usdc(job.cost)} of {format_usdc(job.paid)} USDC paid"
    good = job.state == "succeeded"
    return LogLine(text.replace("_", " "), "good" if good else "bad", event.at)
