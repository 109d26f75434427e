"""Whether new jobs are taken, and whether those that wait may start: every reason in one place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from computeswarm.core.durations import format_duration
from computeswarm.core.errors import Unavailable, Unprocessable
from computeswarm.core.jobs import JobSpec
from computeswarm.core.money import format_usdc
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.states import JobState
from computeswarm.core.text import clean_line
from computeswarm.seller.runner import Order
from computeswarm.seller.slots import fits

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

NodeMood = Literal[
    "taking",
    "starting",
    "stopping",
    "paused",
    "draining",
    "drained",
    "closed",
    "held",
    "in_use",
    "no_gas",
]
_CHOICES = "owner_choices"
_TOO_LATE = "The seller's hours end before the job would; everything paid goes back."
_CLOSED = "The seller's hours are over; everything paid goes back."


@dataclass(frozen=True, slots=True)
class Choices:
    """What the owner chose while it ran; kept over a restart."""

    paused: bool = False
    draining: bool = False
    then_stop: bool = False
    reason: str = ""
    """In the owner's words."""
    price: int = 0
    """Atoms an hour; 0 where the setting holds."""
    price_set: int = 0
    """The setting when he chose: once it is another, it holds again."""


class Acceptance:
    """The one who says yes or no to a job. Kept choices are in the store."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self.choices = Choices()
        self._said_drained = False

    def recall(self) -> None:
        """Take up what the owner chose before a restart."""
        agent = self._agent
        kept = agent.desk.store.fact(_CHOICES)
        if kept is not None:
            self.choices = Choices(**json.loads(kept))
        if self.choices.price and self.choices.price_set == agent.config.price_per_hour:
            agent.offers.price_per_hour = self.choices.price
            price = format_usdc(self.choices.price)
            agent.notices.tell(f"The price is {price} USDC an hour, as you chose before.")
        if self.choices.paused or self.choices.draining:
            agent.notices.tell(f"Still {self.mood()}: no new jobs until you resume.", "warning")

    def choose(self, **changes: bool | int | str) -> None:
        """Keep what the owner chose, and tell the market."""
        known = {name: getattr(self.choices, name) for name in Choices.__dataclass_fields__}
        self.choices = Choices(**(known | changes))
        kept = {name: getattr(self.choices, name) for name in Choices.__dataclass_fields__}
        self._agent.desk.store.keep_fact(_CHOICES, json.dumps(kept).encode())
        self._agent.market.refresh()

    def pause(self, reason: str = "") -> None:
        """Take no new jobs; those that are paid go on."""
        reason = clean_line(reason, limit=120)
        self.choose(paused=True, reason=reason)
        self._agent.notices.tell("Paused: no new jobs." + (f" {reason}" if reason else ""))

    def drain(self, reason: str = "", *, then_stop: bool = False) -> None:
        """Take no new jobs, finish those that are paid, say when none is left, and then stop."""
        reason = clean_line(reason, limit=120)
        self._said_drained = False
        self.choose(draining=True, then_stop=then_stop, reason=reason)
        left = self._left()
        end = ", then the seller stops" if then_stop else ""
        self._agent.notices.tell(f"Draining: no new jobs; {left} to finish{end}.")
        self.look_if_drained()

    def resume(self) -> None:
        """Take jobs again."""
        self.choose(paused=False, draining=False, then_stop=False, reason="")
        self._agent.notices.tell("Taking jobs again.")

    def look_if_drained(self) -> None:
        """Say once that the last job is gone, and stop if that was wanted."""
        if not self.choices.draining or self._said_drained or self._left():
            return
        self._said_drained = True
        self._agent.notices.tell("Drained: no job is left.", "good")
        if self.choices.then_stop:
            # the next start is to take jobs again
            self.choose(draining=False, then_stop=False, reason="")
            self._agent.stop_requested.set()

    def mood(self) -> NodeMood:
        """How the seller feels about new jobs."""
        agent, choices = self._agent, self.choices
        if agent.stopping:
            return "stopping"
        if not agent.ready:
            return "starting"
        if choices.draining:  # also where he pauses meanwhile: it is the stronger word
            return "draining" if self._left() else "drained"
        if choices.paused:
            return "paused"
        if agent.gas_wei == 0:
            return "no_gas"
        if not agent.config.windows.open_at(agent.clock.now()):
            return "closed"
        gpus, held = len(agent.config.hardware.gpus), agent.holds.gpus
        if agent.holds.machine or (gpus and len(held) == gpus):
            return "held"
        return "in_use" if gpus and len(held | agent.owner_use.gpus) == gpus else "taking"

    def why(self) -> str:
        """The mood in a sentence; empty where jobs are taken."""
        agent, mood, reason = self._agent, self.mood(), self.choices.reason
        given = f" ({reason})" if reason else ""
        sentences = {
            "starting": "The seller starts just now",
            "stopping": "The seller stops just now",
            "paused": f"The seller takes no jobs at present{given}",
            "draining": f"The seller takes no more jobs and finishes those it has{given}",
            "drained": f"The seller takes no more jobs{given}",
            "no_gas": "The seller can't settle payments (no gas)",
            "in_use": "The owner uses the GPU himself just now",
            "held": "The owner keeps the machine for himself just now",
        }
        if mood == "closed":
            opens = agent.config.windows.opens_at(agent.clock.now())
            left = None if opens is None else format_duration(round(opens - agent.clock.now()))
            return "The seller is closed at this hour" + (f" and opens in {left}" if left else "")
        return sentences.get(mood, "")

    def status(self) -> NodeStatus:
        """What the market is told."""
        if self.mood() != "taking":
            return NodeStatus.DRAINING
        slots = self._agent.slots
        busy = slots.running >= slots.count or not slots.any_free(self._agent.unwell_gpus())
        return NodeStatus.BUSY if busy else NodeStatus.IDLE

    def may_start(self) -> bool:
        """Whether those that wait may begin: they are paid, so a pause does not hold them up."""
        agent = self._agent
        open_now = agent.config.windows.open_at(agent.clock.now())
        return agent.ready and not agent.stopping and open_now and not agent.holds.machine

    def check(self, spec: JobSpec | None = None) -> None:
        """Whether a job is taken now.

        Raises:
            Unavailable: none is, or none on so many GPUs, and why.
            Unprocessable: not one that long, as the seller's hours end before.
        """
        agent = self._agent
        if why := self.why():
            raise Unavailable(f"{why}; choose another node.")
        paying = sum(
            job.state is JobState.AWAITING_PAYMENT for job in agent.desk.store.live()
        )  # each of them will stand in the queue in a moment
        if len(agent.queue) + paying >= agent.config.queue_limit:
            raise Unavailable("The seller's queue is full; choose another node or try later.")
        if spec is not None:
            self._check_held(spec)
            self._check_hours(spec)

    def _check_held(self, spec: JobSpec) -> None:
        agent = self._agent
        fitting = {i for i, gpu in enumerate(agent.config.hardware.gpus) if fits(gpu, spec)}
        left = fitting - agent.holds.gpus
        if len(left) < spec.gpu_count <= len(fitting):
            held = ", ".join(str(index) for index in sorted(fitting - left))
            raise Unavailable(
                f"The owner keeps GPU {held} for himself just now; choose another node"
                + (f", or ask for {len(left)}." if left else ".")
            )

    def _check_hours(self, spec: JobSpec) -> None:
        now = self._agent.clock.now()
        closes = self._agent.config.windows.closes_at(now)
        if closes is None:
            return
        _, waits = self._agent.dispatcher.outlook.of_offer(spec, 0)
        left = int(closes - now) - (waits or 0)
        if spec.max_seconds > left:
            ends = format_duration(round(closes - now))
            wait = f", and the queue takes up to {format_duration(waits)}" if waits else ""
            raise Unprocessable(
                f"The seller's hours end in {ends}{wait}; "
                + (f"ask for at most {left} s." if left > 0 else "choose another node."),
                allowed=max(0, left),
            )

    async def look_at_hours(self) -> None:
        """Once the hours are over: what waits goes back, what runs goes on or ends by setting."""
        agent, now = self._agent, self._agent.clock.now()
        closes = agent.config.windows.closes_at(now)
        if closes is not None and agent.config.evict_at_close:
            await self._hand_back_late(closes - now)
        if agent.config.windows.open_at(now):
            return
        order = Order(JobState.SELLER_LOST, _CLOSED, free=True)
        for job_id in list(agent.queue):
            await agent.dispatcher.end_queued(job_id, order)
        if agent.config.evict_at_close:
            for run in list(agent.dispatcher.runs.values()):
                run.end(order)

    async def _hand_back_late(self, left: float) -> None:
        """What waits and would not be through before the hours end: better now than half done."""
        agent = self._agent
        for job_id in list(agent.queue):
            if agent.desk.store.get(job_id).quote.max_seconds > left:
                order = Order(JobState.SELLER_LOST, _TOO_LATE, free=True)
                await agent.dispatcher.end_queued(job_id, order)

    def _left(self) -> int:
        agent = self._agent
        paying = sum(job.state is JobState.AWAITING_PAYMENT for job in agent.desk.store.live())
        return len(agent.queue) + agent.running + paying
