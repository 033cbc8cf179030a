"""Which faults strike when: drawn from a seed before anything is started, so that a seed gives the same schedule again.

There are five lanes. In a lane one fault follows the other, so at most one broker, one worker, one service and one
worker's network are struck at a time; lanes run side by side. A lane takes its kinds from a shuffled deck and shuffles
it again when it is empty, so a run that is long enough meets every kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Lane(StrEnum):
    """What a fault strikes."""

    BROKERS = "brokers"
    WORKERS = "workers"
    SERVICES = "services"
    INPUTS = "inputs"
    LINKS = "links"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how long it lasts (seconds, from and to), how many brokers are down meanwhile, what it does."""

    name: str
    lane: Lane
    lasts_s: tuple[float, float]
    does: str
    brokers_down: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of the schedule. Seconds since the load began; `choice` (0 to 1) picks what it strikes."""

    number: int
    kind: Kind
    begin_s: float
    lasts_s: float
    choice: float

    @property
    def end_s(self) -> float:
        return self.begin_s + self.lasts_s


def _kinds(lane: Lane, *kinds: tuple[str, float, float, str]) -> tuple[Kind, ...]:
    return tuple(Kind(name, lane, (least, most), does) for name, least, most, does in kinds)


KINDS: tuple[Kind, ...] = (
    *_kinds(
        Lane.WORKERS,
        ("worker-killed", 2, 8, "kill -9 of a worker with its supervisor; started again at the end"),
        ("worker-process-killed", 2, 4, "kill -9 of the worker process alone; its supervisor starts another"),
        ("worker-restarted", 1, 4, "a worker is stopped gracefully; started again at the end"),
        ("worker-frozen-long", 8, 12, "SIGSTOP beyond the session timeout, then SIGCONT: it comes back as a zombie"),
        ("worker-frozen-briefly", 1, 3, "SIGSTOP for less than the session timeout"),
        ("worker-starved", 4, 8, "SIGSTOP and SIGCONT in turn, so that it gets about a tenth of its time"),
        ("worker-joins", 6, 12, "another worker joins, and leaves at the end"),
        ("store-deleted", 1, 2, "a worker is stopped, its stores are deleted, it is started again"),
        ("store-bit-flipped", 1, 2, "a worker is stopped, one bit is flipped in each of its stores"),
        ("store-cut", 1, 2, "a worker is killed, the newest file of each of its stores loses its end"),
    ),
    *_kinds(
        Lane.SERVICES,
        ("service-killed", 0.5, 4, "kill -9 of a service; started again at the end"),
        ("service-restarted", 0.5, 3, "a service is stopped gracefully; started again at the end"),
        ("service-frozen", 7, 11, "SIGSTOP of a service beyond its session timeout, then SIGCONT"),
        ("service-slow", 4, 8, "each of a service's commands takes 20 to 60 ms more"),
    ),
    Kind("broker-killed", Lane.BROKERS, (3, 10), "kill -9 of a broker; started again at the end", 1),
    Kind("broker-restarted", Lane.BROKERS, (1, 5), "a broker is stopped in order; started again at the end", 1),
    Kind("brokers-rolled", Lane.BROKERS, (1, 1), "all brokers are restarted, one after the other", 1),
    Kind("broker-frozen", Lane.BROKERS, (4, 9), "SIGSTOP of a broker, then SIGCONT", 1),
    Kind("broker-frozen-long", Lane.BROKERS, (60, 65), "SIGSTOP of a broker for a minute, then SIGCONT", 1),
    Kind("broker-disk-full", Lane.BROKERS, (4, 8), "a broker cannot write any more; started again at the end", 1),
    Kind("journal-leader-killed", Lane.BROKERS, (3, 8), "kill -9 of the broker that leads a journal partition", 1),
    Kind("brokers-all-killed", Lane.BROKERS, (0.5, 3), "kill -9 of all brokers at once; started again at the end", 3),
    *_kinds(
        Lane.INPUTS,
        ("inputs-duplicated", 0, 0, "the latest starts and replies of a partition are written again"),
        ("replies-late", 0, 0, "the first replies of a partition are written again"),
        ("commands-duplicated", 0, 0, "the latest commands of a service's partition are written again"),
        ("poison", 0, 0, "bytes that nobody can read, into inbox, replies, operations and commands"),
        ("reply-forged", 0, 0, "replies to a step with a wrong token"),
        ("start-oversize", 0, 0, "starts of 900 KB and of 2 MiB"),
        ("start-of-unknown-type", 0, 0, "a start of a type that no worker has; it waits for its code"),
        ("claim-forged", 0, 0, "a claim of somebody else is written to a journal partition: the owner is fenced"),
        ("start-repeated", 0, 0, "sagas that run already are started again, as new requests"),
        ("client-dropped", 0, 1, "a client's connection is closed in the middle, and another one is made"),
    ),
    *_kinds(
        Lane.LINKS,
        ("link-slow", 4, 8, "all that the worker on the proxy says and hears comes 50 to 200 ms later"),
        ("link-half-open", 3, 8, "its connections stay open and nothing comes through any more"),
        ("link-reset", 0, 2, "its connections are reset"),
        ("link-flaps", 8, 14, "it is cut off and connected again in turn, every 0.7 s"),
        ("worker-cut-off", 8, 12, "it is cut off from all brokers beyond its session timeout"),
    ),
)
_GAPS_S = {
    Lane.WORKERS: (6.0, 12.0),
    Lane.SERVICES: (6.0, 12.0),
    Lane.BROKERS: (16.0, 30.0),
    Lane.INPUTS: (4.0, 9.0),
    Lane.LINKS: (10.0, 20.0),
}
"""Between the end of a fault and the next of its lane."""
FIRST_S = 3.0
LAST_S = 12.0
"""Before the load ends: no fault begins later."""


def draw(seed: int, seconds: float, lanes: Sequence[Lane] = tuple(Lane)) -> list[Planned]:
    """The faults of a load of so many seconds, in the order in which they begin."""
    found: list[tuple[float, Kind, float, float]] = []
    for lane in Lane:
        random = Random(f"{seed}/{lane}")
        if lane not in lanes:
            continue
        at, deck = FIRST_S + random.uniform(0, 4), list[Kind]()
        while at < seconds - LAST_S:
            if not deck:
                deck = [kind for kind in KINDS if kind.lane is lane]
                random.shuffle(deck)
            kind = deck.pop()
            lasts = random.uniform(*kind.lasts_s)
            found.append((round(at, 2), kind, round(lasts, 2), round(random.random(), 4)))
            at += lasts + random.uniform(*_GAPS_S[lane])
    found.sort(key=lambda each: (each[0], each[1].name))
    return [Planned(number, kind, at, lasts, choice) for number, (at, kind, lasts, choice) in enumerate(found, 1)]
